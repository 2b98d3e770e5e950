"""`unclip map` on a cluster of several machines, one of which goes; and the cluster that the documentation shows."""

import re
import threading
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="unclip map needs the extra [ray], which is not installed")

import map_tasks
from map_tasks import expected, made, write_table

from unclip.cli.mapping import job as mapping
from unclip.cli.mapping.results import Output
from unclip.cli.mapping.tasks import Setup

pytestmark = pytest.mark.slow
PAGE = Path(mapping.__file__).parents[2] / "docs/many-images.md"


def test_the_cluster_of_the_documentation_is_one_to_ray():
    yaml = pytest.importorskip("yaml")
    from ray.autoscaler._private.util import prepare_config, validate_config

    shown = re.search(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL).group(1)
    config = prepare_config(yaml.safe_load(shown))
    validate_config(config)
    assert config["max_workers"] == config["available_node_types"]["gpu"]["max_workers"] == 8


def test_a_machine_that_goes_costs_no_row(ray_environment, tmp_path):
    """A head that draws nothing and two machines of one CPU; one of them is gone after the first rows."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
        cluster.wait_for_nodes()
        gone = threading.Event()

        def lose_a_machine(counts):
            if counts.made and not gone.is_set():
                gone.set()
                cluster.remove_node(nodes[0], allow_graceful=False)

        job = mapping.Job(
            Setup("text-to-image"), write_table(tmp_path / "t.csv", 60), Output(str(tmp_path / "out")), batch=4,
            workers=(1, 2), address=cluster.address, make_task=map_tasks.DrawsSlowly,
        )  # fmt: skip
        counts = mapping.run(job, lose_a_machine)
    finally:
        cluster.shutdown()
    assert gone.is_set() and (counts.made, counts.failed) == (60, 0)
    assert made(tmp_path / "out") == expected(60)
