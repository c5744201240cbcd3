"""Scripts of other packages, from archives of the npm registry."""

import shutil
import subprocess
import tarfile
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest


def script_of(package: str, path: str) -> str:
    """Return a file of a package, such as `axios@1`; skip the test if the package cannot be had."""
    text, reason = _fetched(package, path)
    if reason:
        pytest.skip(f"{package} cannot be fetched: {reason}")
    return text


@cache
def _fetched(package: str, path: str) -> tuple[str, str]:
    """Return the text of a file, and why it cannot be had."""
    npm = shutil.which("npm")
    if npm is None:
        return "", "npm is not installed"
    with TemporaryDirectory() as folder:
        command = [npm, "pack", package, "--silent", "--fetch-retries=0"]
        try:
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=60)
        except subprocess.TimeoutExpired as error:
            return "", str(error)
        if done.returncode != 0:
            return "", done.stderr or f"npm ended with {done.returncode}"
        with tarfile.open(next(Path(folder).glob("*.tgz"))) as archive:
            file = archive.extractfile(f"package/{path}")
            assert file is not None
            return file.read().decode(), ""
