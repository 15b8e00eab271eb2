"""Generate names with every model."""

from pathlib import Path

import pandas as pd

from charlm.core.files import replacing, write_csv, write_json
from charlm.core.params import blame
from charlm.core.randomness import generator, seeded
from charlm.data.checkpoint import load_for
from charlm.data.corpus import load_corpus
from charlm.data.splits import load_split
from charlm.fast.devices import set_up
from charlm.fast.running import Runner
from charlm.models.base import build
from charlm.sampling.sampler import (
    describe_samples,
    name_log_likelihoods,
    sample_names,
    training_names,
)
from stages import DATASET, SAMPLES, SPLIT, checkpoints, read_params, refuse_changed_inputs, run


def main() -> None:
    params = read_params()
    with blame("device"):
        device = set_up(params.device, threads=1)
    corpus = load_corpus(DATASET)
    paths = checkpoints(params.models)
    models = {name: load_for(path, corpus, build) for name, path in paths.items()}
    refuse_changed_inputs()  # again, after importing the code of the models
    tables, metrics = {}, {}
    for name, loaded in models.items():
        model = Runner(loaded.to(device), params.fast)
        with blame("sample.prefix"), seeded(params.seed, f"sample/{name}/model"):  # can be random
            names = sample_names(
                model,
                corpus.vocabulary,
                params.sample.count,
                block_size=corpus.block_size,
                generator=generator(params.seed, f"sample/{name}"),
                temperature=params.sample.temperature,
                prefix=params.sample.prefix or "",
                max_length=params.sample.max_length,
            )
            likelihoods = name_log_likelihoods(model, corpus.vocabulary, names, corpus.block_size)
        tables[name] = pd.DataFrame({"name": names, "log_likelihood": likelihoods})
    drawn = {name for table in tables.values() for name in table["name"]}
    known = training_names(corpus, load_split(SPLIT, corpus), drawn)
    with replacing(SAMPLES) as folder:
        for name, table in tables.items():
            table["in_training"] = table["name"].isin(known)
            write_csv(folder / f"{name}.csv", table)
            metrics[name] = describe_samples(table["name"].tolist(), known)
    write_json(Path("metrics/samples.json"), metrics)
    for name, table in tables.items():
        print(f"{name}: {', '.join(table['name'][:5])}")
    longest = params.sample.max_length
    if cut := sum((table["name"].str.len() == longest).sum() for table in tables.values()):
        print(f"{cut:,} of the names may be cut at {longest} characters; raise sample.max_length")


if __name__ == "__main__":
    run(main)
