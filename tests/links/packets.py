#!/usr/bin/python3
"""Loads over real packets between two network namespaces whose link follows a trace; tests/links/run.sh makes the namespaces and calls this.

What it runs, per trace: `fastest` with every recompute ability, `deadline` at several deadlines, our finest and coarsest level fixed, CacheGen's policy on our
levels, 8 bits over plain TCP, and text (the model's prefill). Beside each stands what the clairvoyant reaches on the same trace from the same moment and what
the simulator says of the same load (tests/links/packets_plan_main.cc). docs/links.md, "Real packets", says what the link is made of.

Asserts only what must be right: the bytes that were loaded, the levels, that every chunk is ready. Delays are reported, never asserted.
"""
import argparse
import atexit
import json
import math
import os
import random
import re
import subprocess
import sys
import time

import numpy as np

HERE = os.path.dirname(os.path.realpath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path[:0] = [HERE, os.path.join(ROOT, "deploy", "quickstart"), os.path.join(ROOT, "tests", "e2e"), os.path.join(ROOT, "tests", "reference_lm")]
os.environ["KVSTREAM_TEST_ROOT"] = ROOT

SERVER, CLIENT = "10.77.0.2", "10.77.0.1"
# The model that the traces' 0.1 to 10 Gbit/s are meant for: Llama-3.1-8B, elements of KV a token.
FULL_VALUES_PER_TOKEN = 65536
CHUNK_TOKENS = 256
ABILITIES = ("NONE", "SUFFIX", "ANY", "FRONT")
FLOOR = 1  # of `fastest`, as in the simulation
MIDDLE_DEADLINE = 1  # index of the deadline at which the policies are compared
FAMILIES = ("cachegen", "constant", "onoff", "shared", "stalls", "steps", "walk")
CONTEXT = "prose-3-rust-doc"
CONSTANTS = 5  # 0.1, 0.3, 1, 3, 10 Gbit/s
IDLE_SECONDS = 0.5  # longer than any retransmission timeout here, with four round trips more


def say(text):
    print(text, file=sys.stderr, flush=True)


# ---------------------------------------------------------------- processes and the link


class Worker:
    """A process that answers one JSON object a line with one."""

    def __init__(self, *command, env=None):
        self.process = subprocess.Popen(list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
        atexit.register(self.end)

    def ask(self, wanted):
        self.process.stdin.write(json.dumps(wanted) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.process.args} ended with status {self.process.wait()}")
        answer = json.loads(line)
        if answer.get("error"):
            raise RuntimeError(f"{wanted}: {answer['error']}")
        return answer

    def end(self):
        if self.process.poll() is None:
            self.process.stdin.close()
            try:
                self.process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def run(*command):
    return subprocess.run(list(map(str, command)), check=True, stdout=subprocess.PIPE, text=True).stdout


def inside(space, *command):
    return ["ip", "netns", "exec", space, *command]


class Testbed:
    """The two namespaces with the link between them, the daemon in one and the client in the other."""

    def __init__(self, args):
        self.args = args
        server, client = args.server_space, args.client_space
        run("ip", "link", "add", "ks", "netns", server, "type", "veth", "peer", "name", "kc", "netns", client)
        for space, device, address in ((server, "ks", SERVER), (client, "kc", CLIENT)):
            run("ip", "-n", space, "link", "set", "lo", "up")
            run("ip", "-n", space, "addr", "add", address + "/30", "dev", device)
            run("ip", "-n", space, "link", "set", device, "up")
        # The way to the server leads through the delay, the way back through the shaped device.
        self.delay = subprocess.Popen([args.bin + "/tests/links/delay_tun", client, "dc", server, "ds"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        atexit.register(self.end_delay)
        if self.delay.stdout.readline() != "ready\n":
            raise RuntimeError("delay_tun did not start")
        for space, device in ((client, "dc"), (server, "ds")):
            run("ip", "-n", space, "link", "set", device, "up")
        run("ip", "-n", client, "route", "add", SERVER + "/32", "dev", "dc", "src", CLIENT)
        # The congestion control of a route needs no privilege over the whole system, unlike the sysctl.
        run("ip", "-n", server, "route", "replace", "10.77.0.0/30", "dev", "ks", "src", SERVER, "congctl", args.congestion)
        if args.keep_window:
            run(*inside(server, "sh", "-c", "echo 0 > /proc/sys/net/ipv4/tcp_slow_start_after_idle"))
        self.link = Worker(*inside(server, sys.executable, "-u", HERE + "/packets_link.py", "ks", CLIENT, SERVER))
        self.link.ask({"do": "rate", "bytes_per_second": 125e6})
        self.daemon()

    def daemon(self):
        ports = self.args.work + "/ports.json"
        self.log = open(self.args.work + "/kvstreamd.log", "w")
        self.kvstreamd = subprocess.Popen(inside(self.args.server_space, self.args.bin + "/server/kvstreamd", "--data-dir", self.args.work + "/db", "--listen", SERVER + ":0",
                                                 "--http-listen", "127.0.0.1:0", "--ports-file", ports), stdout=self.log, stderr=subprocess.STDOUT)
        atexit.register(self.end_daemon)
        while not os.path.exists(ports):
            if self.kvstreamd.poll() is not None:
                raise RuntimeError("kvstreamd ended at its start; see " + self.args.work + "/kvstreamd.log")
            time.sleep(0.05)
        with open(ports) as f:
            self.address = f"{SERVER}:{json.load(f)['grpc']}"

    def set_rtt(self, seconds):
        self.delay.stdin.write(f"{round(seconds * 1e6)}\n")
        self.delay.stdin.flush()

    def ctl(self, *arguments):
        return json.loads(run(*inside(self.args.client_space, self.args.bin + "/client/kvstreamctl", *arguments, "--format", "json")))

    def congestion_controls(self):
        """Of the daemon's connections, as the kernel names them."""
        shown = run(*inside(self.args.server_space, "ss", "-tiHn", "state", "established"))
        return sorted(set(re.findall(r"\b(cubic|bbr|reno)\b", shown)))

    def end_delay(self):
        if self.delay.poll() is None:
            self.delay.stdin.close()
            self.delay.wait()

    def end_daemon(self):
        if self.kvstreamd.poll() is None:
            self.kvstreamd.terminate()
            try:
                self.kvstreamd.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self.kvstreamd.kill()
                self.kvstreamd.wait()


# ---------------------------------------------------------------- traces


class Trace:
    """A trace file; rates in bytes a second of the file's own scale."""

    def __init__(self, path):
        self.path, self.name = path, os.path.basename(path)[:-len(".trace")]
        self.steps, self.period = [], None
        with open(path) as f:
            text = f.read()
        self.family = re.search(r"# family: (\w+)", text)[1]
        self.rtt = float(re.search(r"# rtt_ms: ([\d.e-]+)", text)[1]) / 1000
        for line in text.splitlines():
            line = line.split("#")[0].split()
            if len(line) == 2 and line[1] == "loop":
                self.period = float(line[0])
            elif line:
                self.steps.append((float(line[0]), float(line[1][:-len("bit")]) / 8))

    def rate_at(self, at):
        if self.period is not None:
            at %= self.period
        return [rate for begin, rate in self.steps if begin <= at][-1]

    def carried(self, begin, end):
        """Bytes in [begin, end], by small steps."""
        steps = 2000
        return sum(self.rate_at(begin + (end - begin) * (i + 0.5) / steps) for i in range(steps)) * (end - begin) / steps

    def on_link(self, scale, offset):
        return {"do": "follow", "steps": [(at, rate * scale) for at, rate in self.steps], "period": self.period, "offset": offset}


# ---------------------------------------------------------------- the context that is loaded


def pack_8bit(kv):
    """Per layer, K and V: a float16 scale per token, then one signed byte per value; packets_client.Loads.unpack reads it."""
    import quickstart
    return quickstart.pack_8bit(kv)


def save_context(work, tokens, kv_bits):
    import reference_lm as R
    arrays = {"tokens": np.asarray(tokens, np.int32)}
    for i, (key, value) in enumerate(kv_bits):
        arrays[f"key{i}"], arrays[f"value{i}"] = key, value
    np.savez(os.path.join(work, "context.npz"), **arrays)
    kv = [(R.bf16_bits_to_float(key), R.bf16_bits_to_float(value)) for key, value in kv_bits]
    R.save_kv(os.path.join(work, "context.safetensors"), kv, arrays["tokens"], "BF16", "packets")
    with open(os.path.join(work, "eight_bits.bin"), "wb") as f:
        f.write(pack_8bit(kv))


def real_context(args):
    """The reference model's own KV of a context that no calibration has seen, whole chunks of it."""
    import dump_kv
    import quickstart
    import reference_lm as R
    lm = R.load(os.path.join(ROOT, "tests", "reference_lm"))
    args.kvstreamctl = args.bin + "/client/kvstreamctl"
    os.rename(quickstart.build_profile(args, lm), os.path.join(args.work, "profile.kvprofile"))
    context = dump_kv.load_context(os.path.join(ROOT, "tests", "reference_lm", "contexts", CONTEXT + ".json"))
    tokens = context["tokens"][:len(context["tokens"]) // CHUNK_TOKENS * CHUNK_TOKENS]
    node = quickstart.ServingNode(lm, tokens)
    node.prefill(0, len(tokens))
    save_context(args.work, tokens, node.memory)


def synthetic_context(args):
    import harness
    harness.binary = lambda name: os.path.join(args.bin, name)
    model = harness.Model(args.work, layers=8, kv_heads=4, head_size=64, rank=96, seed=11)
    os.rename(model.profile(), os.path.join(args.work, "profile.kvprofile"))
    path = model.context("made", 4 * CHUNK_TOKENS)
    raw = harness.bits(path)
    import reference_lm as R
    tokens = R.read_safetensors(path)[0]["tokens"]
    save_context(args.work, tokens, [(raw[f"layers.{i}.key"], raw[f"layers.{i}.value"]) for i in range(model.layers)])


# ---------------------------------------------------------------- the runs


class Runs:
    def __init__(self, args, bed):
        self.args, self.bed = args, bed
        env = {**os.environ, "PYTHONPATH": args.bin + "/client/python", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        kind = ["--synthetic"] if args.quick else []
        self.client = Worker(*inside(args.client_space, sys.executable, "-u", HERE + "/packets_client.py", bed.address, args.work, *kind), env=env)
        bed.ctl("put", "--server", bed.address, "--profile", args.work + "/profile.kvprofile", "--in", args.work + "/context.safetensors", "--model", "packets@1")
        self.facts = self.client.ask({"do": "prepare"})
        self.values_per_token = self.facts["values"] / self.facts["tokens"]
        # What a token costs on a link of the trace's rate, as the plan counts it.
        self.full_values = FULL_VALUES_PER_TOKEN * args.stretch
        self.scale = self.values_per_token / self.full_values
        self.port = bed.link.ask({"do": "serve", "path": args.work + "/eight_bits.bin"})["port"]
        self.decode_s_per_token = self.facts["decode_s_per_token"]
        self.rows, self.random = [], random.Random(args.seed)

    def traced(self, options, name="probe"):
        """A load of kvstreamctl's with --trace; recompute is emulated at the model's measured speed."""
        path = f"{self.args.work}/{name}.json"
        self.bed.ctl("load", "--server", self.bed.address, "--profile", self.args.work + "/profile.kvprofile", "--tokens-from", self.args.work + "/context.safetensors",
                     "--model", "packets@1", "--threads", "1", "--out", self.args.work + "/out.safetensors", "--trace", path, *options)
        with open(path) as f:
            return json.load(f)

    def check(self, answer, what):
        if answer["wrong"]:
            raise RuntimeError(f"{what}: {answer['wrong']}")
        levels = answer["levels"]
        if len(levels) != self.facts["tokens"] // CHUNK_TOKENS:
            raise RuntimeError(f"{what}: {len(levels)} chunks")
        if answer["all_in_place_s"] is None:
            raise RuntimeError(f"{what}: never ready")
        if answer["recomputed_tokens"] < CHUNK_TOKENS * sum(level is None for level in levels):
            raise RuntimeError(f"{what}: fewer tokens recomputed than told")

    def case(self, trace, start):
        plan = subprocess.run([self.args.bin + "/tests/links/packets_plan", trace.path], check=True, stdout=subprocess.PIPE, text=True, input=json.dumps(
            {"tokens": self.facts["tokens"], "values_per_token": self.full_values, "bits": self.facts["bits"], "start_s": start,
             **self.cost, "decode_s_per_token": self.decode_s_per_token}) + "\n").stdout
        return json.loads(plan)

    def link_from(self, trace, start, idle):
        """The link is at `start` of the trace now. With `idle` nothing has been sent for so long that TCP begins with its initial window."""
        if idle:
            time.sleep(IDLE_SECONDS + 4 * trace.rtt)
        self.bed.link.ask(trace.on_link(self.scale, start))

    def plain(self, trace, start, size, idle):
        self.link_from(trace, start, idle)
        return self.client.ask({"do": "plain_tcp", "port": self.port, "bytes": size})["seconds"]

    def load(self, trace, start, plan, what, idle=False, **wanted):
        """One load from `start` of the trace on."""
        self.link_from(trace, start, idle)
        answer = self.client.ask({"do": "load", "hint": plan["prior_bytes_per_second"] * self.scale, **wanted})
        self.check(answer, f"{trace.name}, {what}")
        for level in answer["levels"]:
            if level is not None and level < wanted.get("floor_level", 0):
                raise RuntimeError(f"{trace.name}, {what}: below the floor")
        if wanted["policy"] == "fixed" and answer["levels"] != [wanted["level"]] * len(answer["levels"]):
            raise RuntimeError(f"{trace.name}, {what}: levels {answer['levels']}")
        return answer

    def trace(self, trace, abilities, deadlines):
        # Anew for each trace: the machine may be busier than it was.
        self.cost = self.client.ask({"do": "measure"})
        start = 11 + 29 * self.random.random()
        self.bed.set_rtt(trace.rtt)
        plan = self.case(trace, start)
        say(f"{trace.name}: from {start:.2f} s, round trip {1000 * trace.rtt:.1f} ms, prefill {1e6 * self.cost['seconds_per_token']:.0f} us a token, deadlines " + ", ".join(f"{d:.2f}" for d in plan["deadlines_s"]))
        row = {"trace": trace.name, "family": trace.family, "rtt": trace.rtt, "start": start, "cost": self.cost, "plan": plan, "fastest": {}, "idle": {}, "deadline": {}}
        for ability in abilities:
            # Once after an idle time and once more at once.
            for name, idle in (("idle", True), ("fastest", False)):
                row[name][ability] = self.load(trace, start, plan, f"fastest {ability}", idle, policy="fastest", ability=ability.lower(), floor_level=FLOOR)
            row["deadline"][ability] = [
                self.load(trace, start, plan, f"deadline {ability}", policy="deadline", ability=ability.lower(), deadline_ms=1000 * plan["deadlines_s"][index])
                for index in deadlines]
        deadline_ms = 1000 * plan["deadlines_s"][MIDDLE_DEADLINE]
        finest = len(self.facts["bits"]) - 1
        row["cachegen"] = self.load(trace, start, plan, "cachegen", policy="cachegen", ability="any", deadline_ms=deadline_ms)
        row["finest"] = self.load(trace, start, plan, "finest", policy="fixed", level=finest)
        row["coarsest"] = self.load(trace, start, plan, "coarsest", policy="fixed", level=0)
        row["recompute"] = self.load(trace, start, plan, "recompute", policy="recompute", ability="any")
        if row["recompute"]["bytes"] != 0:
            raise RuntimeError(f"{trace.name}, recompute: bytes were sent")
        size = self.facts["level_bytes"][FLOOR]
        row["plain_idle"] = self.plain(trace, start, size, True)
        row["plain"] = self.plain(trace, start, size, False)
        self.link_from(trace, start, False)
        row["eight_bits"] = self.client.ask({"do": "eight_bits", "port": self.port})
        if row["eight_bits"]["wrong"]:
            raise RuntimeError(f"{trace.name}, eight bits: {row['eight_bits']['wrong']}")
        self.rows.append(row)
        return row

    def self_check(self, traces):
        """What the link really carries: plain TCP against what the trace promises over the same time. [(name, share)]"""
        shares = []
        size = os.path.getsize(self.args.work + "/eight_bits.bin")
        self.bed.set_rtt(0)
        for trace in traces:
            self.link_from(trace, 11, False)
            began = time.monotonic()
            answer = self.client.ask({"do": "pump", "port": self.port, "bytes": size})
            end = 11 + time.monotonic() - began
            promised = trace.carried(end - answer["seconds"], end) * self.scale
            shares.append((trace.name, answer["bytes"] / promised))
            say(f"self-check {trace.name}: plain TCP got {answer['bytes'] / promised:.3f} of what the trace promises")
        return shares


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("bin", "traces", "work", "server-space", "client-space"):
        parser.add_argument("--" + name, required=True)
    parser.add_argument("--quick", action="store_true", help="a made-up context, two traces, no report: for CI")
    parser.add_argument("--dry", action="store_true", help="print the tables only")
    parser.add_argument("--per-family", type=int, default=2, help="traces of each family")
    parser.add_argument("--families", default=",".join(FAMILIES))
    parser.add_argument("--congestion", default="cubic", choices=("cubic", "bbr", "reno"))
    parser.add_argument("--keep-window", action="store_true", help="the server keeps its congestion window over idle times (net.ipv4.tcp_slow_start_after_idle=0)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--stretch", type=float, default=1, help="how much slower the links are yet, so that the context takes the link's time of so many of it")
    parser.add_argument("--json", help="also write all answers there")
    args = parser.parse_args()

    (synthetic_context if args.quick else real_context)(args)
    bed = Testbed(args)
    runs = Runs(args, bed)
    say(f"{runs.facts['tokens']} tokens of {runs.values_per_token:.0f} values; links are the traces' over {1 / runs.scale:.1f}; "
        f"decode {1e6 * runs.decode_s_per_token:.2f} us a token; bits per value "
        + ", ".join(f"{b:.2f}" for b in runs.facts["bits"]) + "; congestion control " + ", ".join(bed.congestion_controls()))
    if bed.congestion_controls() != [args.congestion]:
        raise RuntimeError(f"the connections run {bed.congestion_controls()} and not {args.congestion}")

    def trace(family, index):
        return Trace(f"{args.traces}/final_{family}_{index:02d}.trace")

    if args.quick:
        for one in (trace("constant", 3), trace("steps", 0)):
            row = runs.trace(one, ("NONE", "ANY"), (MIDDLE_DEADLINE,))
            say(f"  fastest NONE {row['fastest']['NONE']['seconds']:.3f} s, clairvoyant {row['plan']['NONE']['fastest']['clairvoyant_s']:.3f} s; "
                f"8 bits {row['eight_bits']['seconds']:.3f} s")
        recorded = runs.traced(["--deadline", "2s"])
        if not recorded["outcome"]["ok"] or sum(recorded["arrivals"]) != recorded["outcome"]["bytes"]:
            raise RuntimeError("a recorded load does not add up")
        print(f"packets: {sum(2 * len(r['fastest']) + sum(map(len, r['deadline'].values())) + 5 for r in runs.rows)} loads over real packets, all of their KV as it must be")
        return 0

    checks = runs.self_check([trace("constant", i) for i in (0, 2, 3, 4)] + [trace("steps", 0), trace("walk", 0)])
    for family in args.families.split(","):
        # The picture of delay against bandwidth wants every rate.
        for index in range(max(args.per_family, CONSTANTS) if family == "constant" else args.per_family):
            runs.trace(trace(family, index), ABILITIES, range(3))
    import packets_report
    text = packets_report.report(runs, checks)
    print(text)
    if args.json:
        with open(args.json, "w") as f:
            json.dump({"facts": runs.facts, "scale": runs.scale, "checks": checks, "rows": runs.rows}, f)
    if not args.dry:
        packets_report.write(ROOT, text, runs, bed, trace)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (RuntimeError, OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"packets: {error}")
