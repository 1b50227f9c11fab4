"""A small writer of SVG: shapes and text, no scripts, nothing from elsewhere."""

from __future__ import annotations

from xml.sax.saxutils import escape, quoteattr

INK, SOFT, LINE, GROUND = "#1d2129", "#667085", "#c9ced6", "#ffffff"
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', sans-serif"


class Drawing:
    """Elements in the order in which they are drawn.

    Args:
        width, height: of the picture, whose ground is drawn, so that it reads on a dark page too.
    """

    def __init__(self, width: float, height: float) -> None:
        self.width, self.height = width, height
        self.parts: list[str] = []

    def box(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        fill: str = GROUND,
        line: str = LINE,
        radius: float = 6,
        thick: float = 1,
    ) -> None:
        self.parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="{radius}" '
            f'fill="{fill}" stroke="{line}" stroke-width="{thick}"/>'
        )

    def text(
        self,
        x: float,
        y: float,
        said: str,
        size: float = 12,
        fill: str = INK,
        anchor: str = "middle",
        bold: bool = False,
    ) -> None:
        weight = ' font-weight="600"' if bold else ""
        self.parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{fill}" text-anchor="{anchor}"{weight}>'
            f"{escape(said)}</text>"
        )

    def line(
        self,
        points: list[tuple[float, float]],
        colour: str = SOFT,
        arrow: bool = False,
        dashed: bool = False,
    ) -> None:
        """A line through points, round at its corners."""
        path = " ".join(f"{'L' if i else 'M'}{x:.1f} {y:.1f}" for i, (x, y) in enumerate(points))
        ends = ' marker-end="url(#tip)"' if arrow else ""
        dash = ' stroke-dasharray="4 3"' if dashed else ""
        self.parts.append(
            f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="1.3" stroke-linejoin="round"{ends}'
            f"{dash}/>"
        )

    def plus(self, x: float, y: float) -> None:
        """Where a branch is added."""
        self.parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="7" fill="{GROUND}" stroke="{SOFT}" stroke-width="1.2"/>'
            f'<path d="M{x - 3.5:.1f} {y:.1f}h7M{x:.1f} {y - 3.5:.1f}v7" stroke="{SOFT}" stroke-width="1.2"/>'
        )

    def to_svg(self, title: str) -> str:
        """The file."""
        tip = (
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
            f'orient="auto"><path d="M0 .8 7 4 0 7.2z" fill="{SOFT}"/></marker></defs>'
        )
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{self.width:.0f}" height="{self.height:.0f}" '
            f'viewBox="0 0 {self.width:.0f} {self.height:.0f}" font-family={quoteattr(FONT)} role="img">'
            f"<title>{escape(title)}</title>{tip}"
            f'<rect width="100%" height="100%" rx="12" fill="{GROUND}"/>'
            + "\n".join(self.parts)
            + "</svg>\n"
        )


def wide(said: str, size: float = 12) -> float:
    """About how wide a text is."""
    narrow = sum(c in "iljt.,:;|'! ()[]fr" for c in said)
    return size * (0.57 * (len(said) - narrow) + 0.31 * narrow)


def cut(said: str, room: float, size: float = 12) -> str:
    """A text that fits, its end left out where it must."""
    if wide(said, size) <= room:
        return said
    while said and wide(said + "\N{HORIZONTAL ELLIPSIS}", size) > room:
        said = said[:-1]
    return said.rstrip() + "\N{HORIZONTAL ELLIPSIS}"
