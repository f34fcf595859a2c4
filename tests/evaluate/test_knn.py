"""k-NN against loops, on features whose answer is known, and from files to a table."""

import json
import math
import shutil

import numpy as np
import pytest
import torch

from clever_fast.cli import main
from clever_fast.errors import UserError
from clever_fast.evaluate.knn import check, knn_accuracy
from clever_fast.evaluate.labelled import first_of_each_class
from clever_fast.pipelines.manifest import open_manifest


def looped(bank, bank_labels, query, query_labels, k):
    correct = 0
    for q, truth in zip(query, query_labels, strict=True):
        similarity = [float(torch.dot(q, b) / (q.norm() * b.norm())) for b in bank]
        nearest = sorted(range(len(bank)), key=lambda i: -similarity[i])[:k]
        votes = {}
        for i in nearest:
            label = int(bank_labels[i])
            votes[label] = votes.get(label, 0) + math.exp(similarity[i] / 0.07)
        correct += max(votes, key=votes.get) == int(truth)
    return 100 * correct / len(query)


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_equals_loops(chunk):
    torch.manual_seed(0)
    bank, query = torch.randn(60, 5), torch.randn(33, 5)
    labels, truth = torch.randint(4, (60,)), torch.randint(4, (33,))
    accuracy = knn_accuracy(bank, labels, query, truth, neighbours=(1, 5, 20), chunk=chunk)
    assert accuracy == {k: pytest.approx(looped(bank, labels, query, truth, k)) for k in (1, 5, 20)}


def test_separable_features_are_perfect_and_constant_ones_are_chance():
    torch.manual_seed(0)
    labels = torch.arange(200) % 4
    separable = torch.eye(4)[labels] + 0.05 * torch.randn(200, 4)
    assert knn_accuracy(separable, labels, separable[:40], labels[:40], neighbours=(10,)) == {10: 100.0}
    noise = knn_accuracy(torch.randn(2000, 8), torch.randint(4, (2000,)), torch.randn(2000, 8), torch.arange(2000) % 4)
    assert noise[20] == pytest.approx(25, abs=4)


def test_k_above_the_bank_is_left_out_or_refused():
    features, labels = torch.randn(15, 3), torch.zeros(15, dtype=torch.int64)
    assert list(knn_accuracy(features, labels, features, labels)) == [10]


@pytest.mark.parametrize(("chunk", "bank_chunk"), [(1000, 7), (7, 20), (33, 59)])
def test_chunks_of_the_bank_change_nothing(chunk, bank_chunk):
    torch.manual_seed(0)
    data = torch.randn(60, 5), torch.randint(4, (60,)), torch.randn(33, 5), torch.randint(4, (33,))
    whole = knn_accuracy(*data, neighbours=(1, 5, 20))
    assert knn_accuracy(*data, neighbours=(1, 5, 20), chunk=chunk, bank_chunk=bank_chunk) == whole


def test_few_labels_are_the_first_of_each_class():
    labels = np.array([2, 0, 2, 2, 0, 1])
    assert first_of_each_class(labels, 2).tolist() == [0, 1, 2, 4, 5]
    assert first_of_each_class(labels, 9).tolist() == list(range(6))
    with pytest.raises(UserError, match="0 labelled images"):
        first_of_each_class(labels, 0)


def test_data_sets_that_do_not_fit_are_refused(images, tmp_path):
    bank, query = open_manifest(images), open_manifest(images, split="val")
    check(bank, query, (20,))
    with pytest.raises(UserError, match=r"24 labelled images cannot take k = \[30, 100\]"):
        check(bank, query, (30, 100))
    with pytest.raises(UserError, match=r"cannot take k = \[0, 5\]"):
        check(bank, query, (0, 5))
    shutil.copytree(images / "val", tmp_path / "val")
    (tmp_path / "val" / "discs").rename(tmp_path / "val" / "discus")
    with pytest.raises(UserError, match="different classes, discs, discus"):
        check(bank, open_manifest(tmp_path / "val"), (20,))


def test_command_writes_trained_untrained_and_pixels(small, images, tmp_path, capsys):
    from clever_fast.options import Execution, Run
    from clever_fast.train import train

    train(small(), Execution(device="cpu"), Run(data=images, folder=tmp_path, stop_after=1))
    words = ["evaluate", "knn", "--run", str(tmp_path), "--data", str(images)]
    assert main([*words, "--neighbours", "[3,6]", "--labels", "[2,8]"]) == 0
    result = json.loads((tmp_path / "knn.json").read_text())
    names = [f"{when} {part}" for when in ("trained", "untrained") for part in ("all", "IR", "EF")] + ["raw pixels"]
    found = {(row["features"], row["labels"], row["images"], row["k"]): row["accuracy"] for row in result["rows"]}
    assert list(found) == [(name, labels, 3 * labels, k) for name in names for labels in (2, 8) for k in (3, 6)]
    assert all(accuracy * 12 % 100 == pytest.approx(0, abs=1e-6) for accuracy in found.values())
    assert (result["bank"], result["queries"]) == (24, 12)
    assert "trained IR" in capsys.readouterr().out
    assert main([*words, "--labels", "2", "--neighbours", "[7]"]) == 2
    assert "6 labelled images cannot take k = [7]" in capsys.readouterr().err
