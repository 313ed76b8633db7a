"""The example for Kubernetes in suites/machines.md: its pods are alike, as a run asks of nodes; Ray is as pinned."""

import re
from pathlib import Path

import pytest
import yaml

PAGE = Path("suites/machines.md")


@pytest.fixture(scope="module", name="objects")
def _objects():
    (block,) = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return {each["kind"]: each for each in yaml.safe_load_all(block)}


def test_all_pods_are_alike_and_share_the_volume_that_the_run_is_kept_on(objects):
    cluster, claim = objects["RayJob"]["spec"]["rayClusterSpec"], objects["PersistentVolumeClaim"]
    head, *workers = (each["template"]["spec"] for each in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]))
    assert workers
    assert all(pod == head for pod in workers)
    assert head["volumes"][0]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    mounted = head["containers"][0]["volumeMounts"][0]["mountPath"]
    words = objects["RayJob"]["spec"]["entrypoint"].split()
    assert [word.startswith(f"{mounted}/") for word in words] == [False, False, True, False, True, False, False]
    assert words[-2:] == ["--engine", "ray"]


def test_the_cluster_asks_for_a_token_and_has_the_pinned_ray(objects):
    cluster = objects["RayJob"]["spec"]["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token"}
    assert f"ray=={cluster['rayVersion']}" in Path("constraints.txt").read_text().splitlines()
