"""The numbers in ``variants.csv`` that no metric and no measured cost declares."""

from __future__ import annotations

import math

from harness.results.metric import DOCUMENTS, Column

BITS = Column(
    "bits_per_byte",
    "of language models: negative log-likelihood of test text in bits, over its bytes; 95 % interval (bootstrap over "
    "passages; several seeds: of a mean over these and passages)",
    better="lower",
    unit="bits",
    interval="bits_per_byte",
    outcome=DOCUMENTS,
)

CALIBRATED = (
    Column("temperature", "the temperature fitted on held-out for the two columns that follow"),
    Column("nll_calibrated", "NLL after temperature scaling on held-out", better="lower", unit="nats"),
    Column("ece_calibrated", "ECE after temperature scaling on held-out", better="lower", most=1.0),
)
"""What is left once confidence is recalibrated."""

DIFFERENCE = Column(
    "diff_vs_reference",
    "accuracy minus the reference's, paired by example; 95 % interval, of these models: the mean over the seeds",
    better="higher",
    least=-1.0,
    most=1.0,
    interval="diff",
)

COMPARED = (
    DIFFERENCE,
    Column("mcnemar_p", "exact McNemar test of equal accuracy, two-sided, of one seed alone", most=1.0),
    Column("p_adjusted", "of the suite's score: no difference from the reference, for the whole table", most=1.0),
)
"""The comparison with the reference (``evaluate.decisions``)."""

PICKED = Column(
    "score_corrected",
    "of the variant with the best of the suite's scores: this score, corrected for having been picked on the test "
    "examples, with its 95 % interval",
    least=-math.inf,
    interval="score_corrected",
)

COUNTED = (
    Column("params_stored", "parameters of all different models it holds", better="lower", source="counter"),
    Column(
        "params_active",
        "parameters that one example meets, over all model calls; of staged systems the mean",
        better="lower",
        source="counter",
    ),
    Column(
        "flops_per_example",
        "matrix products and convolutions, 1 multiply-add = 2; of staged systems the mean",
        better="lower",
        unit="FLOPs",
        source="counter",
    ),
)
"""Costs that are counted, not measured: every machine gives the same."""

BUILDING = (
    Column(
        "build_seconds",
        "time to build it from trained members, held-out searches included",
        better="lower",
        unit="s",
        source="timer",
        elsewhere=True,
    ),
    Column(
        "members_train_seconds",
        "time it took to train the members it was given, and their base",
        better="lower",
        unit="s",
        source="timer",
        elsewhere=True,
    ),
)

OWN_COST = Column(
    "cost",
    "what an answer costs, as the members' own files say: the sum over the models that ran for it; cost/money, say",
    better="lower",
    outcome=DOCUMENTS,
)
"""Of measures only: there is no column of this name, but one measure for each cost that members bring."""

GENERATED = Column(
    "generated_tokens",
    "of answers that language models write: the tokens that were generated for an answer, once for each model that ran "
    "for them",
    better="lower",
    unit="tokens",
    outcome=DOCUMENTS,
)
"""Of measures only, for each task."""

UNREGISTERED_SCORES = (BITS, *CALIBRATED, *COMPARED, PICKED)
UNREGISTERED_COSTS = (*COUNTED, *BUILDING)

STAGE_ERROR = Column(
    "error",
    "of pipelines: the error that is due to a stage, by oracle substitution; error/1 m0, say, and those of all stages "
    "add up to the error of the whole",
    better="lower",
    least=-1.0,
    most=1.0,
    outcome=DOCUMENTS,
)
WORDS_RIGHT = Column(
    "words_right",
    "of pipelines: the share of the true text's words that a text has, in their order, as it was given "
    "(words_right/0 given) or as a stage restored it (words_right/1 m0)",
    better="higher",
    least=0.0,
    most=1.0,
    outcome=DOCUMENTS,
)
BY_STAGE = (STAGE_ERROR, WORDS_RIGHT)
"""One measure for each stage."""
MEASURES = (OWN_COST, GENERATED, *BY_STAGE)
"""What measures may be called besides metrics: there are no columns of these names."""
