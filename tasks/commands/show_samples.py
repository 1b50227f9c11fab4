"""Show the last samples of the newest run: ``python -m tasks.commands.show_samples``."""

from __future__ import annotations

from pathlib import Path


def main(runs: Path = Path("runs")) -> None:
    """Print the newest run's last samples and its folder."""
    files = sorted(runs.glob("*/samples/*.txt"), key=lambda path: path.stat().st_mtime)
    if files:
        print(files[-1].read_text(encoding="utf-8"))
        print(f"The run is in {files[-1].parent.parent}.")


if __name__ == "__main__":
    main()
