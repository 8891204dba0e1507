# SPDX-License-Identifier: MIT OR Apache-2.0
"""Just enough SVG: elements as strings, with everything escaped that came from outside."""

from html import escape


def tag(name: str, *children: str, **attributes: object) -> str:
    """One element. Children are markup already; `class_` and `font_size` style names lose `_` or turn it into `-`."""
    listed = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_plain(value))}"' for key, value in attributes.items()
    )
    return f"<{name}{listed}>{''.join(children)}</{name}>"


def text(words: str, x: float, y: float, class_: str = "label", anchor: str = "middle") -> str:
    """A line of text."""
    return tag("text", escape(words), x=x, y=y, class_=class_, text_anchor=anchor)


def title(words: str) -> str:
    """The tooltip of the parent, which screen readers read, too."""
    return tag("title", escape(words))


def drawing(width: float, height: float, words: str, *children: str) -> str:
    """A drawing that fills the width it is given. `words` describes it for screen readers."""
    return tag("svg", *children, viewBox=f"0 0 {width:g} {height:g}", role="img", aria_label=words)


def _plain(value: object) -> str:
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else str(value)
