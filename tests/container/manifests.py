"""The Kubernetes manifests: rendered as `oc kustomize` does, and turned into Pods. As a script: checks all of them.

`make lint` runs it: each variation against the schemas of three versions of Kubernetes, and by kube-linter. What needs
a tool that is not there and cannot be had is skipped, and said to be.
"""

from __future__ import annotations

import copy
import functools
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml

ROOT = Path(__file__).resolve().parents[2]
FILES = ("PerformanceProducer.yaml", "PerformanceConsumer.yaml", "kustomization.yaml", "overlays")
OVERLAYS = tuple(sorted(path.name for path in (ROOT / "overlays").iterdir()))
KUBERNETES_VERSIONS = ("1.29", "1.33", "1.37")
TOOLS = {  # the newest ones that Go 1.26 builds
    "kustomize": "sigs.k8s.io/kustomize/kustomize/v5@v5.7.1",
    "kube-linter": "golang.stackrox.io/kube-linter/cmd/kube-linter@v0.7.6",
}

Manifest = dict[str, Any]


class ToolMissingError(Exception):
    """A tool is not installed, and Go cannot install it; the text says why."""


def render(overlays: Sequence[str] = (), *, data_file: Path | None = None) -> list[Manifest]:
    """What `oc apply -k .` applies once the # is taken away before these overlays, and before data-file."""
    with tempfile.TemporaryDirectory() as folder:
        for name in FILES:
            copy_any = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy_any(ROOT / name, Path(folder) / name)
        path = Path(folder) / "kustomization.yaml"
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        wanted = [f"overlays/{name}" for name in overlays]
        if data_file is not None:
            shutil.copy(data_file, Path(folder) / "my-events.json")
            wanted += ["name: data-file", "files:", "data.json=my-events.json"]
        text = "".join(_uncommented(line, wanted) for line in lines)
        missing = [one for one in wanted if not re.search(rf"^ .* {re.escape(one)}$", text, re.MULTILINE)]
        assert not missing, f"kustomization.yaml has no line for {missing}"
        path.write_text(text, encoding="utf-8")
        done = subprocess.run([*_kustomize(), folder], capture_output=True, check=True)
    return list(yaml.safe_load_all(done.stdout))


def _uncommented(line: str, wanted: Sequence[str]) -> str:
    return line[1:] if line.startswith("#") and any(line.rstrip().endswith(f" {text}") for text in wanted) else line


def pod(job: Manifest, *, index: int = 0) -> Manifest:
    """The Pod that Kubernetes makes of a Job, with the user that OpenShift gives it, and an index where it has one."""
    made = copy.deepcopy(job["spec"]["template"])
    made |= {"apiVersion": "v1", "kind": "Pod"}
    made["metadata"]["name"] = f"{job['metadata']['name']}-{index}"
    made["spec"]["securityContext"] |= {"runAsUser": 1000680000, "runAsGroup": 0}
    if job["spec"].get("completionMode") == "Indexed":
        made["spec"]["containers"][0]["env"].append({"name": "JOB_COMPLETION_INDEX", "value": str(index)})
    return dict(made)


@functools.cache
def tool(name: str) -> str:
    """The path of a tool of TOOLS, which Go installs into the virtual environment where it is missing.

    Raises ToolMissingError.
    """
    folder = Path(sys.prefix) / "bin"
    found = shutil.which(name) or shutil.which(name, path=str(folder))
    if found:
        return found
    if not shutil.which("go"):
        raise ToolMissingError(f"{name} is not installed, and Go, which would install it, is not there")
    environment = os.environ | {"GOBIN": str(folder), "GOFLAGS": "-mod=mod"}
    done = subprocess.run(["go", "install", TOOLS[name]], env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ToolMissingError(f"{name} is not installed, and Go cannot install {TOOLS[name]} here")
    return str(folder / name)


def _kustomize() -> list[str]:
    """kustomize, or the oc or kubectl that has it built in."""
    for name in ("kustomize", "oc", "kubectl"):
        if shutil.which(name):
            return ["kustomize", "build"] if name == "kustomize" else [name, "kustomize"]
    return [tool("kustomize"), "build"]


def _validate(name: str, documents: Sequence[Manifest]) -> None:
    for version in KUBERNETES_VERSIONS:
        for document in documents:
            try:
                kubernetes_validate.validate(document, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                path = ".".join(map(str, error.path))
                sys.exit(f"{name}: {document['kind']} in Kubernetes {version}: {path}: {error.message}")
    print(f"{name}: {len(documents)} documents are valid in Kubernetes {', '.join(KUBERNETES_VERSIONS)}")


def main() -> int:
    """Check all variations; returns the exit code."""
    for name in FILES[:2]:
        _validate(name, list(yaml.safe_load_all((ROOT / name).read_text(encoding="utf-8"))))
    try:
        for overlays in ((), *((one,) for one in OVERLAYS), OVERLAYS):
            documents = render(overlays, data_file=ROOT / "data" / "data.json")
            _validate(" + ".join(("kustomization.yaml", *overlays)), documents)
    except ToolMissingError as error:
        print(f"skipped: the variations of kustomization.yaml: {error}")
    try:
        linter = tool("kube-linter")
    except ToolMissingError as error:
        print(f"skipped: the policies of kube-linter: {error}")
        return 0
    return subprocess.run([linter, "lint", *FILES[:2]], cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
