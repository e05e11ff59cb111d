"""Just enough HTTP/2 to send a gRPC call of arbitrary bytes without a gRPC library, which would not let hostile ones through."""
import socket
import struct

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADERS = 1
_DATA, _RST_STREAM, _SETTINGS, _GOAWAY = 0, 3, 4, 7
_END_STREAM, _END_HEADERS, _ACK = 1, 4, 1


def frame(kind, flags, stream, payload):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def _literal(name, value):
    """HPACK: literal header without indexing, new name, no Huffman code (both shorter than 127 bytes)."""
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


def message(payload, declared=None):
    """gRPC's length-prefixed message; `declared` lies about the length."""
    return b"\x00" + struct.pack(">I", len(payload) if declared is None else declared) + payload


def call(address, path, body, timeout):
    """Sends `body` (below 64 KiB: the window that a peer may use unasked) to a method as one stream and waits for the server to end the stream or the connection.

    Returns the last kind of frame seen (None: the connection was closed before any). Raises TimeoutError if the server does neither.
    """
    host, port = address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=timeout) as connection:
        headers = b"".join(_literal(n, v) for n, v in [
            (b":method", b"POST"), (b":scheme", b"http"), (b":path", path.encode()), (b":authority", b"localhost"),
            (b"content-type", b"application/grpc"), (b"te", b"trailers")])
        try:
            connection.sendall(_PREFACE + frame(_SETTINGS, 0, 0, b"") + frame(HEADERS, _END_HEADERS, 1, headers))
            pieces = [body[i:i + 16384] for i in range(0, len(body), 16384)] or [b""]
            for i, piece in enumerate(pieces):
                connection.sendall(frame(_DATA, _END_STREAM if i == len(pieces) - 1 else 0, 1, piece))
        except (BrokenPipeError, ConnectionResetError):
            return None
        received, last = b"", None
        while True:
            while len(received) >= 9:
                length = int.from_bytes(received[:3], "big")
                if len(received) < 9 + length:
                    break
                last, flags, stream = received[3], received[4], int.from_bytes(received[5:9], "big")
                received = received[9 + length:]
                if last == _GOAWAY or (stream == 1 and (last == _RST_STREAM or flags & _END_STREAM)):
                    return last
                if last == _SETTINGS and not flags & _ACK:
                    connection.sendall(frame(_SETTINGS, _ACK, 0, b""))
            try:
                piece = connection.recv(65536)
            except ConnectionResetError:
                return last
            if not piece:
                return last
            received += piece
