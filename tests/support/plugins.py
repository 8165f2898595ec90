"""Packages that bring a store or a connector, as an installer would leave them on the path."""

from pathlib import Path


def install(site: Path, name: str, source: str, *, group: str, points: dict[str, str]) -> None:
    """Put the module `name` and its metadata into the folder `site`, with `points` as its entry points of `group`."""
    (site / f"{name}.py").write_text(source)
    metadata = site / f"{name}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = [f"[{group}]", *(f"{point} = {target}" for point, target in points.items())]
    (metadata / "entry_points.txt").write_text("\n".join(lines) + "\n")
