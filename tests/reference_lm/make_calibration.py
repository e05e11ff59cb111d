#!/usr/bin/python3
"""Makes calibration/*.json: the contexts from whose KV the reference model's profiles are built.

None of them is, or shares text with, a context under contexts/ (those are for evaluation); the script checks that and fails otherwise.

  prose      six documents of Debian 12 packages that none of contexts/ comes from. They are fetched with `apt-get download`
             (or taken from --packages, a directory of .deb files) and stripped to plain paragraphs; "source" names package, file and licence.
  retrieval  six documents of random keys and values in the formats that the model was trained on, from a fixed seed.

The committed files are the result; run it again only to change them:
    /usr/bin/python3 tests/reference_lm/make_calibration.py [--packages DIR]
"""
import argparse
import glob
import html.parser
import json
import os
import random
import re
import subprocess
import tempfile

import reference_lm as R

HERE = os.path.dirname(os.path.abspath(__file__))
TOKENS = 1536  # of every context
SEED = 20261107

# (name, package, file, licence)
PROSE = [
    ("python", "python3.11-doc", "usr/share/doc/python3.11/html/tutorial/classes.html", "PSF-2.0"),
    ("git", "git-doc", "usr/share/doc/git-doc/gitworkflows.html", "GPL-2.0"),
    ("debian-policy", "debian-policy", "usr/share/doc/debian-policy/policy.html/ch-opersys.html", "GPL-2.0-or-later"),
    ("sqlite", "sqlite3-doc", "usr/share/doc/sqlite3/lockingv3.html", "public domain"),
    ("apache", "apache2-doc", "usr/share/doc/apache2-doc/manual/en/urlmapping.html", "Apache-2.0"),
    ("git-glossary", "git-doc", "usr/share/doc/git-doc/gitglossary.html", "GPL-2.0"),
]

ADJECTIVES = """able acid active aged agile airy alert amber ancient arid azure basic bitter bland blue bold brave brief
bright brisk broad bronze calm candid clever cold cool coral crimson crisp curly damp daring dark deep dense dim dry dull eager early
elastic fancy fast fertile fine firm flat fond fresh frozen gentle giant glad golden grand gray green happy harsh hasty heavy hidden
honest huge humble ideal idle jolly keen kind large late lazy light lively local lone loud lucky lunar mellow mild misty modest narrow
neat noble odd old open orange pale patient plain polite prime proud pure quick quiet rapid rare red rich rigid ripe rough round royal rusty
sacred salty sandy sharp shiny short shy silent silver simple slim slow smart smooth soft solar solid sour spare steady steep stiff
strong sunny sweet swift tall tame tender thick thin tidy tiny tough usual vast violet vivid warm weary white wide wild wise wooden
yellow young""".split()
NOUNS = """acorn actor anchor angle ankle apple arrow badge baker barn basin beach beard bell bench berry bird blade boat bone
book boot bottle bowl box branch bread brick bridge brook brush bucket cabin cable camel candle canyon card carpet castle chain chair chalk
cherry circle cliff clock cloud coat coin comet copper corner cotton crane creek crown cup curtain desk diamond donkey door dragon dream
drum duck eagle engine farm feather fence fiddle field finger flag flame flute forest fork fox garden gate glass glove goat
grape guitar hammer harbor hat hawk hill horse house island jacket jar jewel judge kettle key king kite ladder lake lamp leaf lemon
letter lion lock magnet maple market mask meadow melon mirror monkey moon mountain mouse needle nest oak ocean onion orchard otter
oven owl paper parrot pearl pencil pepper piano pillow pilot planet plate pond potato prince queen rabbit radio raven ribbon
ring river robot rocket roof rope rose saddle sailor salt scarf school shelf shell ship shoe silk singer snake soap soldier song
spider spoon stable star statue stone stove sugar swan table tailor temple tiger tower train tree trumpet tunnel turtle uncle valley
velvet village violin wagon wall walnut water whale wheel window winter wolf worker yard zebra""".split()

_BLOCKS = {"p", "div", "h1", "h2", "h3", "h4", "li", "dt", "dd", "tr", "td", "th", "table", "ul", "ol", "dl", "br", "section", "title"}
_DROPPED = {"script", "style", "pre", "svg", "head"}


class _Paragraphs(html.parser.HTMLParser):
    """Collects the text of a page as paragraphs; code listings are left out, as in the model's training text."""

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.parts, self.dropping = [], 0

    def handle_starttag(self, tag, attrs):
        if tag in _DROPPED:
            self.dropping += 1
        elif tag in _BLOCKS:
            self.parts.append("\n\n")

    def handle_endtag(self, tag):
        if tag in _DROPPED:
            self.dropping = max(0, self.dropping - 1)
        elif tag in _BLOCKS:
            self.parts.append("\n\n")

    def handle_data(self, data):
        if not self.dropping:
            self.parts.append(data)

    def text(self):
        paragraphs = (re.sub(r"\s+", " ", p).strip() for p in re.split(r"\n\s*\n", "".join(self.parts)))
        return "\n\n".join(dict.fromkeys(p for p in paragraphs if p))  # repeated paragraphs once


def fetch(packages_dir, package):
    """Path of the package's .deb in packages_dir, downloaded if it is not there."""
    pattern = os.path.join(packages_dir, package + "_*.deb")
    if not glob.glob(pattern):
        subprocess.run(["apt-get", "download", package], cwd=packages_dir, check=True)
    return glob.glob(pattern)[0]


def prose_contexts(packages_dir):
    for name, package, path, licence in PROSE:
        deb = fetch(packages_dir, package)
        with tempfile.TemporaryDirectory() as root:
            subprocess.run(["dpkg-deb", "-x", deb, root], check=True)
            with open(os.path.join(root, path), encoding="utf-8", errors="replace") as f:
                page = _Paragraphs()
                page.feed(f.read())
        yield {"name": f"prose-{name}", "kind": "prose", "source": f"{package}: {path} ({licence})", "text": page.text()}


def _digits(rng, count):
    return "".join(rng.choice("0123456789") for _ in range(count))


def retrieval_contexts(rng):
    """Documents longer than TOKENS tokens; they are cut to length afterwards."""
    keys = [f"{a}-{n}" for a in ADJECTIVES for n in NOUNS]
    rng.shuffle(keys)
    keys = iter(keys)
    record = "Below is a record of lines to remember. Each line has a REGISTER_CONTENT.\n"
    line = "line {}: REGISTER_CONTENT is <{}>\n"
    formats = [
        ("lines", record, lambda i: line.format(next(keys), _digits(rng, 4))),
        ("recite", record, lambda i: line.format(next(keys), _digits(rng, 4))),
        ("tabrec", "| name | value |\n", lambda i: f"| {next(keys)} | {_digits(rng, 3)} |\n"),
        ("short", "# settings\n", lambda i: f"{next(keys)} = {_digits(rng, 3)}\n"),
        ("json", "{\n", lambda i: f'  "{next(keys)}": "{_digits(rng, 4)}",\n'),
        ("wdict", "Word list. Every word has a meaning.\n", lambda i: f"{next(keys)} means {rng.choice(NOUNS)}.\n"),
    ]
    for name, head, entry in formats:
        yield {"name": f"retrieval-{name}", "kind": "retrieval", "source": f"make_calibration.py, seed {SEED}",
               "text": head + "".join(entry(i) for i in range(200))}


def check_disjoint(contexts):
    """Fails if a context shares a paragraph of 40 characters or more, or a line of a record, with an evaluation context."""
    def pieces(text):
        return {p for p in text.split("\n") if len(p) >= 40} | {p for p in text.split("\n") if re.search(r"\d{3}", p)}
    for path in glob.glob(os.path.join(HERE, "contexts", "*.json")):
        with open(path) as f:
            evaluation = json.load(f)
        held_out = pieces(evaluation["text"] + evaluation.get("continuation_text", "")) - {
            "Below is a record of lines to remember. Each line has a REGISTER_CONTENT."}
        for context in contexts:
            shared = held_out & pieces(context["text"])
            if shared:
                raise SystemExit(f"{context['name']} shares text with {evaluation['name']}: {sorted(shared)[:3]}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packages", help="directory of .deb files; those missing are downloaded into it")
    args = parser.parse_args()
    tokenizer = R.Tokenizer(os.path.join(HERE, "tokenizer.json"))
    with tempfile.TemporaryDirectory() as scratch:
        contexts = list(prose_contexts(args.packages or scratch))
    contexts += retrieval_contexts(random.Random(SEED))
    for context in contexts:
        tokens = tokenizer.encode(context["text"], bos=True)[:TOKENS]
        if len(tokens) < TOKENS:
            raise SystemExit(f"{context['name']} has only {len(tokens)} tokens, {TOKENS} are needed")
        context["text"] = tokenizer.decode(tokens)
        context["tokens"] = tokens
    check_disjoint(contexts)
    for context in contexts:
        with open(os.path.join(HERE, "calibration", context["name"] + ".json"), "w") as f:
            json.dump(context, f)
            f.write("\n")
        print(f"{context['name']:24s} {len(context['tokens'])} tokens  {context['source']}")


if __name__ == "__main__":
    main()
