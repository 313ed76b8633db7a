"""A cost as a plug-in declares it, in one function."""

import resource

import torch

from harness.cost.cost import cost
from harness.results.metric import Column


def declare():
    """What importing the plug-in's module does."""

    @cost(
        "page_faults",
        columns=[
            Column(
                "minor_page_faults",
                "pages that a full batch touched first",
                "lower",
                "faults",
                source="counter",
                elsewhere=True,
            )
        ],
        seconds=0.5,
    )
    def page_faults(bench):
        combination = bench.load()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        with torch.inference_mode():
            combination.log_probs(bench.test.full_batch)
        return {"minor_page_faults": resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before}
