"""What deploy/ ships: rules and dashboard read metrics that exist, the docs explain every metric, the cluster's configuration is one that kvstreamd takes."""
import glob
import json
import os
import re
import subprocess
import textwrap
import unittest

import harness


def text(*path):
    with open(os.path.join(harness.ROOT, *path)) as f:
        return f.read()


def metrics_of_the_daemon():
    names = set()
    for source in ("metrics.cc", "load_stages.cc"):
        names |= set(re.findall(r'"(kvstream_[a-z_]+)"', text("server", "service", source)))
    return names


def metrics_read_by(queries):
    """Families: a histogram's series have endings of their own."""
    return {re.sub(r"_(bucket|count|sum)$", "", name) for name in re.findall(r"\bkvstream_[a-z_]+", queries)}


class DeployTest(harness.TestCase):
    def test_rules_read_metrics_that_exist(self):
        rules = text("deploy", "prometheus", "kvstream.rules.yml")
        expressions = re.sub(r"\b(what_to_do|summary): .*", "", re.sub(r"#.*", "", rules))
        used = metrics_read_by(expressions)
        self.assertGreater(len(used), 8)
        self.assertEqual(used - metrics_of_the_daemon(), set())
        recorded = set(re.findall(r"record: (\S+)", rules))
        self.assertEqual(set(re.findall(r"\bkvstream:[a-z0-9_:]+", expressions)) - recorded, set())

    def test_the_dashboard_reads_metrics_that_exist(self):
        dashboard = json.loads(text("deploy", "grafana", "kvstream.json"))
        queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
        self.assertEqual(metrics_read_by(" ".join(queries)) - metrics_of_the_daemon(), set())
        self.assertEqual(len({panel["id"] for panel in dashboard["panels"]}), len(dashboard["panels"]))
        for query in queries:
            self.assertEqual(query.count("("), query.count(")"), query)

    def test_every_metric_is_explained(self):
        pages = "".join(text(path) for path in glob.glob(os.path.join(harness.ROOT, "docs", "*.md")))
        explained = set(re.findall(r"`(kvstream_[a-z_]+)", pages))
        self.assertEqual(metrics_of_the_daemon() - explained, set())

    def test_kvstreamd_takes_the_configuration_for_kubernetes(self):
        manifest = text("deploy", "kubernetes", "kvstreamd.yaml")
        block = re.search(r"\n  kvstreamd\.yaml: \|\n((?:    .*\n)+)", manifest).group(1)
        config = self.path("kvstreamd.yaml")
        with open(config, "w") as f:
            f.write(textwrap.dedent(block))
        shown = subprocess.run([harness.binary("server/kvstreamd"), "--config", config, "--print-config"], capture_output=True, text=True)
        self.assertEqual(shown.returncode, 0, shown.stderr)
        self.assertIn("0.0.0.0:7411", shown.stdout)


if __name__ == "__main__":
    unittest.main()
