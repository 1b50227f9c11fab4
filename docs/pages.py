"""Writes the pages that the code says itself: a page a member, a page a task, the commands, the API."""

from __future__ import annotations

import contextlib
import inspect
import io
import re
import shutil
from pathlib import Path
from typing import Any

import yaml

import family
import tasks
from family.core.config import TransformerConfig
from family.look.diagram import diagram
from family.look.outline import outline_of
from family.models.member import build, facts_of
from tasks.cli import main
from tasks.commands import COMMANDS
from tasks.data.base import FamilyData

ROOT = Path(__file__).parents[1]
NOTES = ROOT / "docs/notes"
"""What only a person can say: of a task what to look at when it does not learn, of a member its formulas."""


def write_pages(folder: Path) -> None:
    """Make all pages anew in ``folder``."""
    shutil.rmtree(folder, ignore_errors=True)
    pages = {
        **{f"members/{n}": member_page(n, one, folder / "members") for n, one in members().items()},
        **{f"tasks/{name}": task_page(name) for name in task_names()},
        "commands": commands_page(),
        "api": api_page(),
        "contributing": contributing_page(),
    }
    for name, text in pages.items():
        path = folder / f"{name}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def members() -> dict[str, Any]:
    """All that are members, by name."""
    found = {name: getattr(family, name) for name in sorted(dir(family)) if name[0].isupper()}
    return {n: one for n, one in found.items() if inspect.isclass(one) and has_facts(one)}


def has_facts(one: Any) -> bool:
    facts = facts_of(one)
    return facts is not None and bool(facts.example)


def member_page(name: str, member: Any, folder: Path) -> str:
    """What a member is, reads and is trained by, its config, and how equal it is to the published one."""
    facts = member.facts
    builders = [
        f"`{n}`"
        for n in sorted(dir(family))
        if inspect.isfunction(one := getattr(family, n))
        and str(inspect.signature(one).return_annotation) == name
    ]
    calls = ", ".join(call for call in ("forward", "generate") if hasattr(member, call))
    parts = [
        f"# {name}",
        f"```{{eval-rst}}\n.. autoclass:: {member.__module__}.{name}\n   :members: {calls}\n```",
        formulas(name),
        "## At a glance",
        f"- reads: {', '.join(facts.reads) or 'vectors'}",
        f"- trained by: `{facts.task}`" if facts.task else "",
        f"- published sizes: {', '.join(builders)}" if builders else "",
        "\n## Config of a tiny one",
        picture(name, member, folder),
        "What differs from the defaults of the core is what makes it this member:",
        f"```yaml\n{yaml.safe_dump(plain(facts.example), sort_keys=False).strip()}\n```",
        parity(name),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def formulas(name: str) -> str:
    """What its author writes in ``notes/members``: a few lines in the symbols of the paper."""
    file = NOTES / f"members/{name}.md"
    return f"## In formulas\n\n{file.read_text('utf-8').strip()}" if file.exists() else ""


def picture(name: str, member: Any, folder: Path) -> str:
    """Draw a tiny one from its config, where it has a stack of ours."""
    model = build(member, member.facts.example).eval()
    batch = member.facts.inputs.draw(model, 0)
    one = outline_of(model, name, lambda: model(**batch))
    if not one.stacks:
        return ""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.svg").write_text(diagram([one]), encoding="utf-8")
    return f"![A tiny {name}, drawn from its config]({name}.svg)"


def plain(value: Any) -> Any:
    """Arguments as a config file has them; of a stack's config what is not the default."""
    if isinstance(value, TransformerConfig):
        usual = TransformerConfig(dim=value.dim, heads=value.heads, depth=value.depth)
        given = {f: getattr(value, f) for f in value.__dataclass_fields__}
        kept = {"dim", "depth", "heads"}
        return {f: plain(v) for f, v in given.items() if f in kept or v != getattr(usual, f)}
    if hasattr(value, "__dataclass_fields__"):
        return {f: plain(getattr(value, f)) for f in value.__dataclass_fields__}
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return value if isinstance(value, str | int | float | bool | None) else type(value).__name__


def parity(name: str) -> str:
    """The lines of the table of float64 that name a member."""
    text = (ROOT / "examples/parity.md").read_text("utf-8").split("## float64")[1].split("\n## ")[0]
    lines = [line for line in text.splitlines() if line.startswith("|")]
    kinds = re.compile(rf"^\| {re.escape(name)}\b")
    own = [line for line in lines[2:] if kinds.search(line)]
    return "\n".join(["## Beside the published one, in float64\n", *lines[:2], *own]) if own else ""


def task_names() -> list[str]:
    """Folders of configs but those of comparisons."""
    return sorted(
        p.name for p in (ROOT / "configs").iterdir() if p.is_dir() and p.name != "compare"
    )


def task_page(name: str) -> str:
    """What a task learns, which files it reads, a config to copy, and what to look at."""
    configs = sorted((ROOT / "configs" / name).glob("*.yaml"))
    first = next((p for p in configs if p.stem == "shapes"), configs[0])
    made = yaml.safe_load(first.read_text("utf-8"))
    task, data = made["model"]["class_path"], made["data"]["class_path"]
    notes = NOTES / f"{name}.md"
    others = [f"- `{name}/{p.stem}`: {header(p)}" for p in configs if p != first]
    parts = [
        f"# {name.replace('_', ' ').capitalize()}",
        f"```\nfamily fit --config {name}/{first.stem}\nfamily test RUN\n```",
        notes.read_text("utf-8").strip() if notes.exists() else "",
        "## The files that it reads",
        f"```{{eval-rst}}\n.. autoclass:: {full(data)}\n   :no-index:\n```",
        "## What is trained, and how it is judged",
        f"```{{eval-rst}}\n.. autoclass:: {full(task)}\n   :no-index:\n```",
        "## A config to copy",
        f"```yaml\n{first.read_text('utf-8').strip()}\n```",
        "## Others that come along\n\n" + "\n".join(others) if others else "",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def full(path: str) -> str:
    """Where a class is defined, so that it is documented once under one name."""
    package, _, name = path.rpartition(".")
    module = tasks if package == "tasks" else __import__(package, fromlist=[name])
    found = getattr(module, name)
    return f"{found.__module__}.{found.__qualname__}"


def header(path: Path) -> str:
    """The first sentence of a config's header."""
    lines = []
    for line in path.read_text("utf-8").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").strip())
    return re.split(r"(?<=[.:]) ", " ".join(lines))[0].rstrip(":")


def commands_page() -> str:
    """The help of every command."""
    parts = ["# Commands", "Training is LightningCLI's: `family fit --help` has its options.\n"]
    for name, command in COMMANDS.items():
        parts += [f"## family {name}", f"{command.says}.", f"```text\n{help_of(name)}\n```"]
    return "\n\n".join(parts) + "\n"


def help_of(name: str) -> str:
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        main([name, "--help"])
    return said.getvalue().strip()


def contributing_page() -> str:
    """CONTRIBUTING.md, whose links into the repository are names here."""
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8").partition("\n")[2]
    text = re.sub(r"\[[^\]]+\]\((examples/[^)]+)\)", r"`\1`", text)
    return "# A member, a mixer, a task, a data set, a format of your own\n" + text


def api_page() -> str:
    """Functions and classes that are public and have no page of their own."""
    parts = ["# API", "What `import family` and `import tasks` give beside members and tasks.\n"]
    own = members()
    for package in (family, tasks):
        parts.append(f"## {package.__name__}")
        for name in sorted(dir(package)):
            found = getattr(package, name)
            if name.startswith("_") or name in own or not (has_page(found)):
                continue
            kind = "autoclass" if inspect.isclass(found) else "autofunction"
            place = f"{found.__module__}.{found.__qualname__}"
            parts.append(f"```{{eval-rst}}\n.. {kind}:: {place}\n```")
    return "\n\n".join(parts) + "\n"


def has_page(found: Any) -> bool:
    ours = getattr(found, "__module__", "").split(".")[0] in ("family", "tasks")
    task = inspect.isclass(found) and (
        issubclass(found, tasks.Task) or issubclass(found, FamilyData)
    )
    return ours and not task and (inspect.isclass(found) or inspect.isfunction(found))
