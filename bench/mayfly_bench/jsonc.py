# SPDX-License-Identifier: MIT OR Apache-2.0
"""JSON with comments, as Drogon reads its configuration."""

import json
import re
from typing import Any

# A string is matched first, so that what looks like a comment inside one is kept.
_STRING_OR_COMMENT = re.compile(r'("(?:\\.|[^"\\])*")|//[^\n]*|/\*.*?\*/', re.DOTALL)


def loads(text: str) -> Any:
    """Parses JSON that may hold `//` and `/* */` comments."""
    return json.loads(_STRING_OR_COMMENT.sub(lambda match: match.group(1) or " ", text))
