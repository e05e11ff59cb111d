"""What the reference model makes of a context that it reads from a decoded KV cache."""
import os
import sys

import numpy as np

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
REFERENCE = os.path.join(ROOT, "tests", "reference_lm")
sys.path.insert(0, REFERENCE)
import dump_kv  # noqa: E402
import quality  # noqa: E402
import reference_lm as R  # noqa: E402


class Failure(Exception):
    """Something that the user should read; not a bug of the script."""


class Reading:
    """What the model thinks after one context, read from one KV cache."""

    def __init__(self, lm, context, kv):
        self.log_p = quality.log_probabilities(lm, context, kv)
        self.prose = context["kind"] == "prose"
        if self.prose:
            self.answers = [context["continuation_tokens"]]
        else:
            self.answers = [q["answer_tokens"] for q in context["queries"]]
        self.targets = np.concatenate([np.asarray(a) for a in self.answers])

    def nll(self):
        """Per token, nats."""
        return -self.log_p[np.arange(len(self.targets)), self.targets]

    def exact(self):
        """Per question: every token of the answer is the most likely one."""
        hit, out, begin = self.log_p.argmax(axis=-1) == self.targets, [], 0
        for answer in self.answers:
            out.append(bool(hit[begin:begin + len(answer)].all()))
            begin += len(answer)
        return out

    def divergence(self, other):
        """KL(self || other) per token, nats."""
        return (np.exp(self.log_p) * (self.log_p - other.log_p)).sum(axis=-1)


def measure(originals, decoded):
    """Figures over pairs of readings [(original, decoded)]."""
    pairs = list(zip(originals, decoded))
    prose = [(a, b) for a, b in pairs if a.prose]
    answers = [(a, b) for a, b in pairs if not a.prose]
    figures = {}
    if prose:
        figures["kl_prose"] = float(np.concatenate([a.divergence(b) for a, b in prose]).mean())
        figures["nll_change"] = float(np.concatenate([b.nll() - a.nll() for a, b in prose]).mean())
        figures["perplexity_ratio"] = float(np.exp(figures["nll_change"]))
    if answers:
        figures["kl_answers"] = float(np.concatenate([a.divergence(b) for a, b in answers]).mean())
        figures["accuracy"] = float(np.mean(sum((b.exact() for _, b in answers), [])))
        figures["accuracy_original"] = float(np.mean(sum((a.exact() for a, _ in answers), [])))
    return figures


def say(text):
    print(text, file=sys.stderr, flush=True)


def contexts_in(folder):
    """The contexts of tests/reference_lm/<folder>, by name."""
    directory = os.path.join(REFERENCE, folder)
    return [dump_kv.load_context(os.path.join(directory, f)) for f in sorted(os.listdir(directory)) if f.endswith(".json")]


class Workbench:
    """The model, the KV of all contexts on disk and in memory, and what the model makes of the original KV.

    work/queries.safetensors      query statistics of the calibration contexts
    work/calibration/NAME, work/kv/NAME  KV of the calibration and of the evaluation contexts
    """

    def __init__(self, work, contexts, dtype="BF16"):
        self.work, self.contexts, self.lm = work, contexts, R.load(REFERENCE)
        say(f"prefill of the calibration and evaluation contexts ({dtype}) ...")
        self.queries = os.path.join(work, "queries.safetensors")
        self.calibration = dump_kv.dump(self.lm, contexts_in("calibration"), os.path.join(work, "calibration"), dtype, self.queries)
        dump_kv.dump(self.lm, contexts, os.path.join(work, "kv"), dtype)
        say("reading the originals ...")
        self.kv = [R.load_kv(self.path(c))[0] for c in contexts]
        self.originals = self.read(self.kv)

    def path(self, context):
        return os.path.join(self.work, "kv", context["name"] + ".safetensors")

    def read(self, decoded):
        """decoded: KV of every context, in order -> readings."""
        return [Reading(self.lm, context, kv) for context, kv in zip(self.contexts, decoded)]

    def values(self, context):
        """KV values of a context."""
        return len(context["tokens"]) * self.lm.num_layers * 2 * self.lm.num_kv_heads * self.lm.head_dim
