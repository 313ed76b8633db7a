"""Combinations read back from disk: those that are held at once share the models they run."""

import torch

from harness.combinations import DropoutPass, MemberPart, OutputCombination, load_combination
from harness.combining import Linear
from harness.fitting import uniform
from harness.types import Pool
from tests.small_pools import CNN, member, split, trained


def test_combinations_read_with_one_dictionary_load_each_part_once(tmp_path):
    members = [member(f"m{k}", trained(CNN, k)) for k in range(3)]
    pool = Pool("main", "fine_tunes", tuple(members[:2]), base=members[2])
    passes = [DropoutPass(MemberPart(members[0]), index, seed=0) for index in range(2)]
    written = {
        "pair": [MemberPart(members[0]), MemberPart(members[1])],
        "contrast": [MemberPart(members[2]), MemberPart(members[0]), MemberPart(members[2])],
        "dropout": passes,
    }
    shared = {}
    for name, parts in written.items():
        combination = OutputCombination(parts, Linear(uniform(len(parts))))
        (tmp_path / name).mkdir()
        combination.save(tmp_path / name)
        again = load_combination(tmp_path / name, pool, shared=shared)
        alone = load_combination(tmp_path / name, pool)
        inputs = split("test").inputs
        assert torch.equal(again.log_probs(inputs), combination.log_probs(inputs))
        assert [part.digest for part in again.parts()] == [part.digest for part in parts]
        held = {id(part.module) for part in shared.values()}
        assert all(id(part.module) in held for part in again.parts())
        assert not any(id(part.module) in held for part in alone.parts())
    assert shared.keys() == {member.digest for member in members}  # all passes with dropout are of one network
