"""The papers read slowly and plainly, one entry of a flat task vector at a time, on lists of numbers."""


def sign(value):
    return (value > 0) - (value < 0)


def trimmed(tau, density):
    """Section 4 of TIES, step 1: keep the top k % by magnitude; among equals those that come first."""
    ranked = sorted(range(len(tau)), key=lambda i: (-abs(tau[i]), i))
    kept = set(ranked[: max(1, int(density * len(tau)))])
    return [value if i in kept else 0.0 for i, value in enumerate(tau)]


def trimmed_by_the_authors(tau, density):
    """``topk_values_mask`` of their repository: all from the (d - k)-th smallest magnitude on; at 100 % it fails."""
    below = len(tau) - int(len(tau) * density)
    smallest = sorted(map(abs, tau))[max(below, 1) - 1]
    return [value if abs(value) >= smallest else 0.0 for value in tau]


def merged(taus, without_majority):
    """Steps 2 and 3 of TIES for trimmed task vectors; ``without_majority`` is the sign where even that is a draw."""
    columns = list(zip(*taus, strict=True))
    signs = [sign(sum(column)) for column in columns]
    majority = sign(sum(signs)) or without_majority
    result = []
    for column, elected in zip(columns, signs, strict=True):
        agreeing = [value for value in column if sign(value) == (elected or majority)]
        result.append(sum(agreeing) / len(agreeing) if agreeing else 0.0)
    return result


def ties(taus, density):
    """The paper's text, its open ends as in the dialect ``stockpot``."""
    return merged([trimmed(tau, density) for tau in taus], without_majority=1)


def ties_by_the_authors(taus, density):
    """Their repository; ``resolve_zero_signs`` can leave a sign 0, for which ``disjoint_merge`` takes the negative."""
    return merged([trimmed_by_the_authors(tau, density) for tau in taus], without_majority=-1)


def without_outliers(tau, density, outliers):
    """Breadcrumbs: by rank of magnitude, neither the last ``outliers`` nor what is before the kept ones."""
    ranked = sorted(range(len(tau)), key=lambda i: (abs(tau[i]), i))
    kept = int(density * len(tau))
    end = max(kept, len(tau) - int(outliers * len(tau)))
    inside = set(ranked[end - kept : end])
    return [value if i in inside else 0.0 for i, value in enumerate(tau)]


def magprune(row, density, epsilon):
    """DELLA, section 3: the probability to be kept rises evenly with the rank of the magnitude."""
    ranked = sorted(range(len(row)), key=lambda i: (abs(row[i]), i))
    if len(row) == 1:
        return [density]
    steps = {i: rank / (len(row) - 1) for rank, i in enumerate(ranked)}
    return [density - epsilon + 2 * epsilon * steps[i] for i in range(len(row))]
