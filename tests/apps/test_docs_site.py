"""The documentation site builds, its links lead somewhere, and its reference is complete."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("docs", "experiments", "realrl", "scripts")
FILES = ("mkdocs.yml", "README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")
"""What the site is made of, and what its pages link to."""
ROOMS = ("api", "layouts", "algorithms", "program", "planner", "recipes")
"""Packages with a page of the reference."""


def build(project: Path, site: Path, python_path: Path | None = None) -> subprocess.CompletedProcess:
    """Build the site of `project` into `site`."""
    environment = dict(os.environ, NO_MKDOCS_2_WARNING="1")
    if python_path is not None:
        paths = [str(python_path), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment["PYTHONPATH"] = os.pathsep.join(paths)
    command = [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(site)]
    return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, timeout=300)


def public_names(package: Path) -> list[str]:
    """Return the dotted names of a package's public classes and functions, from its source alone."""
    names: list[str] = []
    for file in sorted(package.rglob("*.py")):
        if file.name == "__init__.py" or file.name.startswith("_"):
            continue
        module = ".".join(file.relative_to(ROOT).with_suffix("").parts)
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            is_definition = isinstance(node, (ast.ClassDef, ast.FunctionDef))
            if is_definition and not node.name.startswith("_"):
                names.append(f"{module}.{node.name}")
    return names


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built where importing torch or realrl's kernels would raise."""
    folder = tmp_path_factory.mktemp("site")
    refusing = folder / "refusing"
    refusing.mkdir()
    for module in ("torch", "transformers"):
        (refusing / f"{module}.py").write_text(f"raise ImportError('{module} was imported')\n")
    built = build(ROOT, folder / "html", refusing)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder / "html"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the site's sources, for tests that break one."""
    copy = tmp_path / "project"
    for name in FOLDERS:
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    for name in FILES:
        shutil.copyfile(ROOT / name, copy / name)
    return copy


def test_every_page_is_built_from_sources_alone(site):
    """Each page of docs and of the root; the fixture fails on any warning."""
    pages = {path.relative_to(ROOT / "docs").with_suffix("") for path in (ROOT / "docs").rglob("*.md")}
    pages |= {Path("contributing"), Path("security"), Path("changelog")}
    for page in pages:
        folder = page.parent if page.name == "index" else page
        assert (site / folder / "index.html").is_file(), page
    assert "<h1" in (site / "index.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("room", ROOMS)
def test_the_reference_has_every_public_name(site, room):
    page = (site / "reference" / room / "index.html").read_text(encoding="utf-8")
    names = public_names(ROOT / "realrl" / room)
    assert names
    assert [name for name in names if f'id="{name}"' not in page] == []


def test_pages_load_nothing_from_other_hosts(site):
    """A reader without a network sees the same pages."""
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        for attribute in ('src="http', "src='http", 'rel="stylesheet" href="http', "fonts.googleapis"):
            assert attribute not in text, f"{page} has {attribute}"


BROKEN = {
    "docs/data.md": [
        ("[lost](nowhere.md)", "nowhere.md"),
        ("[lost](plans.md#no-such-heading)", "no-such-heading"),
        ("[lost][realrl.layouts.plan.no_such_name]", "no_such_name"),
    ],
    "README.md": [("[lost](docs/lost.md)", "docs/lost.md")],
    "docs/forgotten.md": [("# Forgotten", "forgotten.md")],
}
"""What is added to a page, and what the build says of it; the last page is in no navigation."""


def test_broken_links_and_forgotten_pages_fail_the_build(project, tmp_path):
    """Each is told, in one build."""
    for page, additions in BROKEN.items():
        with (project / page).open("a", encoding="utf-8") as file:
            for text, _ in additions:
                file.write(f"\n\n{text}\n")
    built = build(project, tmp_path / "html")
    assert built.returncode != 0
    output = built.stdout + built.stderr
    told_texts = [told for additions in BROKEN.values() for _, told in additions]
    assert [told for told in told_texts if told not in output] == []
    assert output.count("WARNING") == len(told_texts), output
