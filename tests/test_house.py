"""The rules of the house: which room may know which (CONTRIBUTING, "Rules")."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = {"runtime/bgert": "bgert", "export/bgert_export": "bgert_export"}


def modules_of(trees):
    """Module name to source, of every Python file."""
    found = {}
    for folder, package in trees.items():
        for path in sorted({*(ROOT / folder).rglob("*.py"), *(ROOT / folder).rglob("*.pyi")}):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            found[".".join([package, *(part for part in parts if part != "__init__")])] = path.read_text("utf-8")
    return found


def imports_of(source, modules):
    """Names of modules of ours that a source imports when it runs, inside functions too, but not for types alone."""
    found = set()

    def visit(node):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for other in node.orelse:
                visit(other)
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            for alias in node.names:
                below = f"{node.module}.{alias.name}"
                found.add(below if below in modules else node.module)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(source))
    return {name for name in found if name.split(".")[0] in ("bgert", "bgert_export")}


def graph_of(modules):
    return {name: imports_of(source, modules) for name, source in modules.items()}


def circle_in(graph):
    """A circle of imports as a list of modules, or None."""
    done, path = set(), []

    def walk(name):
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return None
        path.append(name)
        for other in sorted(graph.get(name, ())):
            if found := walk(other):
                return found
        done.add(path.pop())
        return None

    return next((found for name in sorted(graph) if (found := walk(name))), None)


def within(name, *rooms):
    return any(name == room or name.startswith(room + ".") for room in rooms)


RULES = {
    "the runtime knows nothing of export, its commands aside": (
        lambda name: within(name, "bgert") and not within(name, "bgert.commands"),
        ("bgert_export",),
    ),
    "the tokenizer knows nothing of engines": (lambda name: within(name, "bgert.tokenizer"), ("bgert.backends",)),
    "engines know nothing of text": (lambda name: within(name, "bgert.backends"), ("bgert.tokenizer",)),
    "nothing needs a command": (
        lambda name: within(name, "bgert") and not within(name, "bgert.commands", "bgert.__main__"),
        ("bgert.commands",),
    ),
    "nothing needs an integration or the server": (
        lambda name: not within(name, "bgert.integrations", "bgert.serve", "bgert.commands"),
        ("bgert.integrations", "bgert.serve"),
    ),
}


@pytest.fixture(scope="module")
def graph():
    return graph_of(modules_of(ROOMS))


@pytest.mark.parametrize("rule", RULES)
def test_rooms_know_what_they_may(rule, graph):
    applies, forbidden = RULES[rule]
    assert any(applies(name) for name in graph)
    broken = [(name, other) for name in graph if applies(name) for other in graph[name] if within(other, *forbidden)]
    assert broken == []


def test_the_runtime_has_one_door_to_export():
    """A checkpoint that is named instead of a model folder is exported by a library that is looked up by its name then:
    the runtime runs without it, and verification there imports the runtime."""
    quoted = re.compile(r"""["']bgert_export\b""")
    trees = {folder: package for folder, package in ROOMS.items() if package == "bgert"}
    found = {name for name, source in modules_of(trees).items() if quoted.search(source)}
    assert found == {"bgert.exported_models"}


def test_one_module_knows_hf_tokenizers():
    """A package built in Rust, for folders that were exported so alone: it is imported by a function of that module,
    and nowhere else."""
    found = {}
    runtime = {folder: package for folder, package in ROOMS.items() if package == "bgert"}
    for name, source in modules_of(runtime).items():
        tree = ast.parse(source)
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if any(within(one, "tokenizers") for one in names):
                found.setdefault(name, []).append(node in tree.body)
    assert found == {"bgert.tokenizer.huggingface": [False]}
    users = {name for name, below in graph_of(modules_of(ROOMS)).items() if "bgert.tokenizer.huggingface" in below}
    lazy = {"bgert.tokenizer.build", "bgert.tokenizer.spec"}
    assert users == {*lazy, "bgert.tokenizer.huggingface_batch", "bgert_export.huggingface_tokenizer"}
    for name in lazy:
        at_the_top = ast.parse(modules_of(ROOMS)[name]).body
        assert not any(isinstance(node, ast.ImportFrom) and "huggingface" in (node.module or "") for node in at_the_top)


def test_no_circles_of_imports(graph):
    assert len(graph) > 80
    assert circle_in(graph) is None


def test_a_circle_and_a_forbidden_import_are_seen():
    modules = {
        "bgert": "from bgert import one",
        "bgert.one": "def f():\n    from bgert.two import x",
        "bgert.two": "if TYPE_CHECKING:\n    import bgert\nelse:\n    import bgert.one",
    }
    graph = graph_of(modules)
    assert graph == {"bgert": {"bgert.one"}, "bgert.one": {"bgert.two"}, "bgert.two": {"bgert.one"}}
    assert circle_in(graph) == ["bgert.one", "bgert.two", "bgert.one"]


def test_files_are_of_a_size_to_read():
    python = {path: 430 for folder in ROOMS for path in (ROOT / folder).rglob("*.py")}
    cpp = {path: 340 for path in (ROOT / "runtime/src").rglob("*") if path.suffix in (".cpp", ".h")}
    long = {
        str(path.relative_to(ROOT)): count
        for path, limit in (python | cpp).items()
        if (count := path.read_text("utf-8").count("\n")) > limit
    }
    assert long == {}


def test_nothing_sends_people_to_a_package_index_for_bgert():
    """Until the name is ours there, whoever takes it would run code on our users' machines."""
    wrong = re.compile(r"pip3? install\s[^\n`;]*?(?<![\w./-])bgert(?![\w./-])")
    assert all(
        wrong.search(text) for text in ("pip install 'bgert[cpu]'", "pip install -U bgert", 'pip install "bgert"')
    )
    assert not any(
        wrong.search(text) for text in ("pip install '.[cpu]'", "pip install ./bgert", "pip install bgert-x")
    )
    files = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "Makefile", ROOT / "runtime/CMakeLists.txt"]
    for folder in ("runtime", "export", "benchmarks", "docs", "examples", "tests", "tools"):
        files += [path for path in (ROOT / folder).rglob("*") if path.suffix in (".py", ".md")]
    found = {str(path.relative_to(ROOT)) for path in files if wrong.search(path.read_text("utf-8"))}
    assert found == {"tests/test_house.py"}
