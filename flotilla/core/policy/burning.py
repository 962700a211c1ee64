"""Whether a candidate costs its customers too much: what was counted of it, beside the stable version.

Only what enough replies say counts: p95 of five replies is the slowest one, and means nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from flotilla.core.swap_orders import Budgets, Figures

# A difference of means beyond two of its standard errors is chance in about one of forty cases (one-sided).
STANDARD_ERRORS = 2.0


def burnt(candidate: Figures, stable: Figures, budgets: Budgets) -> tuple[str, ...]:
    """Why the candidate has to go, in words, one reason a budget; empty while all is well."""
    return (
        *_errors(candidate, budgets),
        *_first_token(candidate, stable, budgets),
        *_quality(candidate, stable, budgets),
    )


def _errors(candidate: Figures, budgets: Budgets) -> Iterator[str]:
    """Errors burn as soon as there are `errors_min`, however few replies there are beside them."""
    asked = candidate.replies + candidate.errors
    if not candidate.errors or candidate.errors < budgets.errors_min:
        return
    if candidate.errors / asked > budgets.error_share_max:
        share, most = candidate.errors / asked, budgets.error_share_max
        yield f"errors: {candidate.errors} of {asked} replies failed ({share:.1%}); {most:.1%} may"


def _first_token(candidate: Figures, stable: Figures, budgets: Budgets) -> Iterator[str]:
    if min(candidate.replies, stable.replies) < max(1, budgets.replies_min):
        return
    most = stable.first_token_p95 * budgets.first_token_ratio_max + budgets.first_token_slack_ms
    if candidate.first_token_p95 > most:
        yield (
            f"first token: p95 is {candidate.first_token_p95:.0f} ms against {stable.first_token_p95:.0f} ms "
            f"of {stable.version}; up to {most:.0f} ms may be"
        )


def _quality(candidate: Figures, stable: Figures, budgets: Budgets) -> Iterator[str]:
    if min(candidate.judged, stable.judged) < max(1, budgets.replies_min):
        return
    drop = stable.quality - candidate.quality
    error = math.sqrt(_squared_error(candidate) + _squared_error(stable))
    if drop > budgets.quality_drop_max and drop > STANDARD_ERRORS * error:
        yield (
            f"quality: {candidate.quality:.2f} against {stable.quality:.2f} of {stable.version}, "
            f"{drop:.2f} less (standard error {error:.2f}); {budgets.quality_drop_max:.2f} less may be"
        )


def _squared_error(figures: Figures) -> float:
    """Of the mean."""
    return figures.quality_deviation**2 / figures.judged
