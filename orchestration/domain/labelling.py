"""What the synthesizer sees instead of names: shuffled labels and unguessable fences.

Both are functions of the run's secret seed and the version that began the conversation, so that
the prompts of one conversation share a byte-stable prefix while a rewrite gets new ones.
"""

import re
from hashlib import blake2b


def fence(seed: str, root: int) -> str:
    """16 hexadecimal digits no candidate can know."""
    return blake2b(f"fence {root}".encode(), key=_key(seed), digest_size=8).hexdigest()


def aliases(seed: str, root: int, labels: tuple[str, ...]) -> dict[str, str]:
    """Label -> the label shown to the synthesizer: a permutation, so that neither a model's brand
    nor its place in the list can be guessed from it."""
    key = _key(seed)
    shuffled = sorted(labels, key=lambda x: blake2b(f"{root} {x}".encode(), key=key).digest())
    return dict(zip(labels, shuffled, strict=True))


def take_citations(text: str, shown: dict[str, str]) -> tuple[str, tuple[str, ...]]:
    """(text without citations such as [A][C], the real labels cited). `shown` is `aliases(...)`.
    Links and fenced code are left alone."""
    if not shown or text.lstrip().startswith(("```", "~~~")):
        return text, ()
    real = {alias: label for label, alias in shown.items()}
    names = "|".join(re.escape(name) for name in real)
    cited: set[str] = set()

    def remember(match: re.Match[str]) -> str:
        cited.update(real[name] for name in re.findall(names, match[0]))
        return ""

    group = rf"\[(?:{names})(?:,\s*(?:{names}))*\](?!\()"
    # Directly behind a word it is an index or a footnote of the answer's own: `rows[A]`.
    pattern = rf"(?:(?<=\w)[ \t]+|(?<!\w)[ \t]*){group}(?:[ \t]*{group})*"
    return re.sub(pattern, remember, text).strip(), tuple(sorted(cited))


def _key(seed: str) -> bytes:
    return blake2b(seed.encode()).digest()
