"""The answer: by serving budget, in words, with numbers that are those of the run's tables."""

import json
import re

import numpy as np
import pytest

from harness.report.answer import answer, correlation_words
from harness.report.evidence import Evidence
from harness.report.words import amount, cost_in_words, in_words, members_in_words
from harness.results.columns import numbers
from tests.report.compared import LIKE_THESE, THESE, gained, planted, right

BASE = right(0.8, 1)
SOUP = gained(BASE, 0.02, 2)
MORE = gained(SOUP, 0.03, 3)
WORSE = gained(BASE, -0.02, 2)
COSTS = {"linear": 8, "log_linear": 8, "distill/size=half": 0.28}


def text_of(evidence):
    return "".join(f"`{words}`" if kind == "code" else words for kind, words in answer(evidence).pieces)


def told(outcomes, **given):
    return text_of(planted({"best_single": BASE, **outcomes}, costs=COSTS, **given))


# What is said


def test_each_budget_has_its_best_variant_and_what_it_gains():
    text = told({"uniform_soup": SOUP, "linear": MORE})
    soup, ensemble = text.split("At eight times the cost: ")
    assert soup.startswith(
        "At the cost of one model: the uniform soup of eight fine-tunes (`uniform_soup`), +2.0 points of accuracy over "
        "your best single model ("
    )
    assert ensemble.startswith("the linear ensemble of eight fine-tunes (`linear`), +5.0 points of accuracy (")
    assert ensemble.endswith(", 3.0 points more than `uniform_soup`.")


def test_what_costs_more_and_gains_no_more_is_said_to():
    less = told({"uniform_soup": SOUP, "linear": gained(SOUP, -0.001)})
    assert less.endswith(
        "At eight times the cost the linear ensemble of eight fine-tunes (`linear`) gives no more than that."
    )
    hardly = told({"uniform_soup": SOUP, "linear": gained(SOUP, 0.001)})
    assert hardly.endswith(", no more than 0.5 points above `uniform_soup`.")
    noise = told({"uniform_soup": SOUP, "linear": gained(gained(SOUP, -0.05, 3), 0.051, 4)})
    assert noise.endswith(", which is not shown to be more than `uniform_soup`.")


def test_where_nothing_is_better_it_says_so_and_what_would_show_a_gain():
    assert told({"uniform_soup": WORSE, "linear": WORSE}) == (
        "At up to eight times the cost nothing beats your best single model by more than 0.5 points of accuracy."
    )
    close = told({"uniform_soup": WORSE, "linear": gained(gained(BASE, -0.05, 3), 0.055, 4)})
    found = re.fullmatch(
        r"At up to eight times the cost nothing is shown to beat your best single model\; nearest to it is the linear "
        r"ensemble of eight fine-tunes \(`linear`\), \+0\.(\d) points of accuracy \(−0\.\d to \d\.\d\), and about "
        r"([\d,]+) more test examples would show a gain of that size\.", close)  # fmt: skip
    assert found
    assert 1_000 < int(found[2].replace(",", "")) < 50_000


def test_so_many_more_examples_do_show_the_gain():
    """The number is that of a power of 80 %: of runs with so many examples most say better."""
    few = 600

    def run(examples, seed):
        draw = np.random.default_rng(seed)
        base = draw.random((1, examples)) < 0.8
        other = np.where(draw.random((1, examples)) < 0.08, draw.random((1, examples)) < 0.95, base)
        return planted({"best_single": base, "linear": other}, picks=False)

    told = [text_of(run(few, seed)) for seed in range(12)]
    found = [re.search(r"about ([\d,]+) more test examples would show a gain of that size", text) for text in told]
    counts = [int(match[1].replace(",", "")) for match in found if match]
    assert counts
    many = few + int(np.median(counts))
    better = sum("At the cost of one model: " in text_of(run(many, 100 + seed)) for seed in range(40))
    assert better >= 20


def test_a_budget_without_a_gain_is_said_to_have_none_and_the_next_one_has():
    text = told({"uniform_soup": WORSE, "linear": MORE})
    assert text.startswith(
        "At the cost of one model nothing beats your best single model by more than 0.5 points of accuracy. At eight "
        "times the cost: the linear ensemble"
    )


def test_what_is_as_good_and_cheaper_is_told():
    text = told({"linear": WORSE, "distill/size=half": gained(gained(BASE, 0.0005), -0.001)})
    assert text.endswith(
        "The student of half the size taught by eight fine-tunes (`distill/size=half`) is equivalent to your best "
        "single model at 0.28 times the cost."
    )


def test_of_equals_the_cheaper_one_wins():
    text = text_of(planted({"best_single": BASE, "linear": SOUP, "uniform_soup": SOUP, "log_linear": SOUP},
                           costs={"linear": 1.1, "log_linear": 1.2}))  # fmt: skip
    assert "(`uniform_soup`)" in text
    assert "`linear`" not in text


def test_other_pools_are_compared_in_one_sentence_and_win_no_budget():
    outcomes = {"uniform_soup": WORSE, "run:best_single": MORE, "run:linear": gained(MORE, 0.05, 6)}
    text = told(outcomes)
    assert text.count("run:") == 1
    sentence = text[text.index("A model that") :]
    assert sentence.startswith(
        "A model that is trained otherwise is better: the best single model of eight checkpoints of one run "
        "(`run:best_single`), +5.0 points of accuracy over your best single model ("
    )
    assert sentence.endswith("; that compares training, not combining.")
    assert "run:" not in told({**outcomes, "run:best_single": WORSE})


def test_both_scopes_are_printed_where_there_are_several_seeds():
    base = right(0.8, 1, seeds=3)
    same = planted({"best_single": base, "uniform_soup": gained(base, 0.03, 2)})
    assert re.search(r"\(\d\.\d to \d\.\d for these models; \d\.\d to \d\.\d for models like these, from other seeds\)",
                     text_of(same))  # fmt: skip
    by_seed = np.concatenate([gained(base[[i]], gain, 2) for i, gain in enumerate((0.0, 0.01, 0.08))])
    differ = planted({"best_single": base, "uniform_soup": by_seed})
    assert differ.by_name["uniform_soup"]["verdict"] == "better"
    assert ", so not shown for them)" in text_of(differ)
    assert any("With one seed" in note for note in answer(planted({"best_single": BASE, "linear": SOUP})).notes)
    assert not any("With one seed" in note for note in answer(same).notes)


def test_a_loss_gains_by_being_lower():
    text = told({"uniform_soup": SOUP, "linear": MORE}, score="nll")
    assert re.search(r"`uniform_soup`\), NLL lower by 0\.\d{3} nats than that of your best single model \(0\.", text)
    assert re.search(r"`linear`\), NLL lower by 0\.\d{3} nats \(0\.\d{3} to 0\.\d{3}\), 0\.\d{3} nats more than", text)


def test_without_costs_there_is_one_budget_that_is_not_named():
    unknown = dict.fromkeys(("best_single", "linear"), np.nan)
    text = text_of(planted({"best_single": BASE, "linear": SOUP}, costs=unknown))
    assert text.startswith("The linear ensemble of eight fine-tunes (`linear`), +2.0 points")


def test_without_variants_or_without_the_reference_there_is_no_answer():
    assert told({}) == "There is nothing to compare: the reference is the only variant of its pool with a score."
    evidence = planted({"best_single": BASE, "linear": SOUP})
    run = evidence.run
    run.__dict__["variants"] = run.variants[run.variants["variant"] != "best_single"]
    assert text_of(Evidence(run)) == "There is no answer: the reference best_single has no result in this run."


def test_without_examples_larger_budgets_are_not_compared_with_smaller_ones():
    evidence = planted({"best_single": BASE, "uniform_soup": SOUP, "linear": MORE}, costs=COSTS)
    evidence.run.__dict__["examples"] = None
    assert re.search(r"`linear`\), \+5\.0 points of accuracy \([^)]*\)\.$", text_of(Evidence(evidence.run)))


# Laws


def numbers_in(text):
    return re.findall(r"[+−]?\d+\.\d+", text)


@pytest.mark.parametrize("score", ["accuracy", "nll"])
def test_every_number_of_the_answer_is_in_the_tables(score):
    outcomes = {"best_single": BASE, "uniform_soup": SOUP, "linear": MORE, "log_linear": gained(BASE, 0.001, 7),
                "run:best_single": MORE, "run:linear": SOUP}  # fmt: skip
    evidence = planted(outcomes, costs=COSTS, score=score)
    column = numbers()[score]
    table = evidence.run.comparisons
    table = table[(table["metric"] == score) & table["scope"].isin([THESE, LIKE_THESE])]
    ends = table[["difference", "low_together", "high_together"]].to_numpy().ravel()
    pair = evidence.gain_over("linear", "uniform_soup")
    shown = {amount(column, abs(sign * value), half).strip("+−") for value in (*ends, pair.value)
             for sign in (1, -1) for half in (0.001, 0.004, 0.02)}  # fmt: skip
    found = numbers_in(text_of(evidence))
    assert len(found) >= 7
    assert {number.strip("+−") for number in found} <= shown


def test_no_verdict_without_a_row_that_has_it():
    for outcomes in ({"linear": WORSE}, {"linear": gained(BASE, 0.0005)}, {"linear": SOUP}):
        evidence = planted({"best_single": BASE, **outcomes}, costs=COSTS)
        has = set(evidence.ok["verdict"])
        text = text_of(evidence)
        assert ("At eight times the cost: " in text) == ("better" in has)
        assert "unclear" not in text
        assert "(+0.00)" not in text


@pytest.mark.parametrize("seeds", [1, 3])
def test_of_equal_variants_hardly_any_is_said_to_win(seeds):
    draw, runs, said = np.random.default_rng(seeds), 60, 0
    for _ in range(runs):
        shared = draw.random((seeds, 300)) < 0.7
        names = ["best_single", *(f"{'linear' if i % 2 else 'uniform_soup'}/v={i}" for i in range(12))]
        outcomes = {name: shared ^ (draw.random(shared.shape) < 0.05 * (1 + 1.3 * ~shared)) for name in names}
        text = text_of(planted(outcomes, picks=False))
        said += any(words in text for words in ("the cost: ", "one model: "))
    assert said <= 6  # 3 are to be expected; more than 6 by chance in 3 % of cases


def test_the_best_of_all_is_told_with_its_score_corrected_for_the_pick():
    evidence = planted({"best_single": BASE, "uniform_soup": SOUP, "linear": MORE})
    best = evidence.run.record["best"]["accuracy"]
    (note,) = [note for note in answer(evidence).notes if "corrected" in note]
    assert f"linear has the highest accuracy, {100 * MORE.mean():.2f} %" in note
    assert f"it is {100 * best['corrected']:.2f} % ({100 * best['low']:.2f} % to" in note
    assert "no other may be the best (95 %)" in note


def test_where_accuracy_sees_nothing_what_a_finer_score_sees_is_noted():
    same = gained(gained(BASE, -0.01, 3), 0.01, 4)
    losses = {"linear": np.where(same, 0.05, 1.9), "best_single": np.where(BASE, 0.1, 2.0)}
    notes = answer(planted({"best_single": BASE, "linear": same}, losses=losses)).notes
    assert notes[0].startswith(
        "By other scores the linear ensemble of eight fine-tunes (linear) is better: NLL lower by 0."
    )
    assert "By other scores" not in " ".join(answer(planted({"best_single": BASE, "linear": SOUP})).notes)


def test_a_run_of_version_1_is_said_to_be_uncorrected():
    notes = answer(planted({"best_single": BASE, "linear": SOUP}, version=1)).notes
    assert any("an earlier version made it" in note and "as if there were no other variants" in note for note in notes)
    assert not any("hold for all" in note for note in notes)


def test_headlines_are_the_reference_the_winners_the_best_and_the_correlation():
    coefficient = {"value": 0.94, "low": 0.87, "high": 0.99}
    evidence = planted({"best_single": BASE, "uniform_soup": SOUP, "linear": MORE}, costs=COSTS)
    evidence.run.__dict__["correlations"] = [
        {"pool": "main", "metric": "nll", "seed": seed, "pearson": coefficient, "n": 64} for seed in ("0", "all")
    ]
    first, soup, ensemble, best, last = answer(evidence).headlines
    assert first == (f"{100 * BASE.mean():.2f} %", "accuracy of best_single")
    assert soup == ("+2.00 points", "uniform_soup, at 1.00× the FLOPs")
    assert ensemble == ("+5.00 points", "linear, at 8.00× the FLOPs")
    assert best[1] == "best of all pools, corrected for the pick: linear"
    assert last == ("0.94 (0.87 to 0.99)", "ensemble–average correlation (NLL), n = 64")


# Words


@pytest.mark.parametrize(
    ("variant", "words"),
    [
        ("best_single", "best single model"),
        ("linear/weights=learned", "linear ensemble of eight fine-tunes with learned weights"),
        ("uniform_soup", "uniform soup of eight fine-tunes"),
        ("distill/size=half", "student of half the size taught by eight fine-tunes"),
        ("distill/epochs=15,size=half", "student of half the size taught by eight fine-tunes (epochs 15)"),
        ("distill/alpha=0,epochs=6", "student taught by labels alone (epochs 6)"),
        ("moe/routing=dense,experts=4", "dense mixture of four experts"),
        ("run:linear", "linear ensemble of eight checkpoints of one run"),
    ],
)
def test_variants_are_called_in_words(variant, words):
    evidence = planted({"best_single": BASE, "run:best_single": BASE, variant: BASE})
    row = evidence.by_name[variant]
    if "experts" in variant:
        row = {**row, "params": '{"routing": "dense", "experts": 4}'}
    if "epochs" in variant:
        given = {"alpha": 0.0, "epochs": 6} if "alpha" in variant else {"size": "half", "epochs": 15}
        row = {**row, "params": json.dumps(given)}
    assert in_words(evidence, row) == words


def test_a_method_that_is_not_here_is_called_by_its_name():
    evidence = planted({"best_single": BASE})
    assert in_words(evidence, {"method": "some_plug_in", "pool": "main", "params": "{}"}) == "some plug in"


@pytest.mark.parametrize(
    ("count", "words"),
    [(2, "two of the eight fine-tunes"), (8, "eight fine-tunes"), (1, "one of the eight fine-tunes"),
     (None, "eight fine-tunes")],
)  # fmt: skip
def test_members_are_counted(count, words):
    assert members_in_words(planted({"best_single": BASE}), "main", count) == words


@pytest.mark.parametrize(
    ("ratio", "words"),
    [(1.0, "the cost of one model"), (2.01, "twice the cost"), (8.00002, "eight times the cost"),
     (1.18, "1.2 times the cost"), (0.2754, "0.28 times the cost"), (30.0, "30 times the cost")],
)  # fmt: skip
def test_costs_in_words(ratio, words):
    assert cost_in_words(ratio) == words


@pytest.mark.parametrize(
    ("value", "half", "words"),
    [(0.01305, 0.003, "1.3"), (0.01305, 0.001, "1.31"), (-0.0002, 0.01, "−0.02"), (0.05, None, "5.0"),
     (0.0, 0.01, "0.0"), (-1e-9, 0.01, "0.00")],
)  # fmt: skip
def test_points_are_as_exact_as_their_interval(value, half, words):
    assert amount(numbers()["accuracy"], value, half) == words


@pytest.mark.parametrize(
    ("coefficient", "words"),
    [
        ({"value": None, "low": None, "high": None}, "undefined"),
        ({"value": -0.5, "low": None, "high": None}, "−0.50"),
        ({"value": -0.123, "low": -0.5, "high": 0.25}, "−0.12 (−0.50 to 0.25)"),
    ],
)
def test_a_coefficient_in_words(coefficient, words):
    assert correlation_words(coefficient) == words
