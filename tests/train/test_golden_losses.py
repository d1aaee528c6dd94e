"""The training losses of one small run, which every change of the code must keep, to the last bit and on
every CPU."""

import pytest

from feste_dp.run.metrics import read_metrics

GOLDEN = {
    "fp32": [
        5.5491369385272264,
        5.441430261358619,
        5.3242015559226274,
        5.088805183768272,
        4.771486402489245,
        4.481732372194529,
        4.149610592518002,
        3.9196300129406154,
        3.7669400018639863,
        3.576647275593132,
        3.441683975979686,
        3.597910693846643,
        3.605454427190125,
        3.534648244269192,
        3.398565643001348,
        3.5110061136074364,
        3.3609249000437558,
        3.451409474015236,
        3.367662569973618,
        3.512171429116279,
    ],
    "bf16": [
        5.549188525415957,
        5.441313565708697,
        5.324096306227148,
        5.088269135914743,
        4.770686508156359,
        4.48041461315006,
        4.148141481447965,
        3.9177118982188404,
        3.764931326266378,
        3.5752434441819787,
        3.4398996457457542,
        3.5971240061335266,
        3.605166264809668,
        3.5342263556085527,
        3.398077765945345,
        3.5108204688876867,
        3.36040776129812,
        3.451062852051109,
        3.3675101404078305,
        3.5121934171766043,
    ],
}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_first_twenty_losses_are_those_of_the_list(runs, precision):
    config = runs.config(
        train__precision=precision,
        model__vocab_size=256,  # the bytes: no merges that another tokenizer version may learn differently
        train__steps=20,
        optim__lr=1e-2,
        optim__min_lr=1e-3,
        eval__every=0,
        sample__every=0,
        checkpoint__every=0,
    )
    outcome = runs.launch(config)
    losses = [row.train_loss for row in read_metrics(outcome.run / "metrics.csv")]
    assert losses == GOLDEN[precision]
