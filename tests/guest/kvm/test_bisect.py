"""`git bisect run` with the command: it finds the commit that changed the policy, and skips what cannot be seen."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from pyvfio_user.guest.results import Matrix

LACKING = "./Image --config config"
"""A kernel that lacks what it takes, as its configuration says."""
COMMITS = ["6.12", "6.12", LACKING, "6.12", "6.1", "6.1"]
"""The kernel of each commit: Linux 6.9 relaxed the policy, so that those with 6.1 are bad."""
STATUSES = {"6.12": "0", LACKING: "125", "6.1": "1"}


def git(folder: Path, *words: str) -> str:
    environment = ["-c", "user.name=x", "-c", "user.email=x@example.invalid", "-c", "commit.gpgsign=false"]
    command = ["git", *environment, *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.timeout(300)
def test_the_commit_that_changed_the_policy_is_found(tmp_path: Path) -> None:
    tree, reports = tmp_path / "tree", tmp_path / "reports"
    tree.mkdir()
    reports.mkdir()
    git(tree, "init", "-q")
    for number, kernel in enumerate(COMMITS):
        (tree / "kernel").write_text(kernel)
        (tree / "number").write_text(str(number))
        (tree / "Image").write_bytes(bytes(56) + b"ARM\x64" + bytes(4))
        (tree / "config").write_text("CONFIG_KVM=y\n")
        git(tree, "add", ".")
        git(tree, "commit", "-q", "-m", f"commit {number}")
    script = tmp_path / "look"
    script.write_text(
        "#!/bin/sh\n"
        f"{Path(sys.executable).with_name('pyvfio-user')} kvm --kernel $(cat kernel) --cpu neoverse-n1 "
        f"--expect vma-allow-any-uncached --json {reports}/$(cat number)\n"
        f"status=$?; echo $(cat number) $status >> {tmp_path}/statuses; exit $status\n"
    )
    script.chmod(0o755)
    git(tree, "bisect", "start", "HEAD", "HEAD~5")
    found = git(tree, "bisect", "run", str(script))
    statuses = dict(line.split() for line in (tmp_path / "statuses").read_text().splitlines())
    assert statuses == {number: STATUSES[COMMITS[int(number)]] for number in statuses}
    assert set(statuses.values()) == {"0", "1", "125"}
    assert f"{git(tree, 'rev-parse', 'refs/bisect/bad').strip()} is the first bad commit" in found
    assert git(tree, "show", "refs/bisect/bad:number") == "4"
    schemes = {"6.12": ["vma-allow-any-uncached"], "6.1": ["status-quo"], LACKING: [None]}
    for tested in statuses:
        kernels = msgspec.json.decode((reports / tested).read_bytes(), type=Matrix).kernels
        assert [kernel.scheme for kernel in kernels] == schemes[COMMITS[int(tested)]]
