from bgert.evaluation.sample_texts import docstrings, sample_texts


def test_docstrings_are_found_under_their_public_names():
    found = docstrings()
    assert len(found) > 2000
    assert found["shutil.copytree"].startswith("Recursively copy")
    assert "threading.Barrier.wait" in found
    assert len(set(found.values())) == len(found)
    assert not any("._" in name for name in found)


def test_samples_are_seeded_and_mixed():
    assert sample_texts(50, seed=1) == sample_texts(50, seed=1) != sample_texts(50, seed=2)
    words = [len(text.split()) for text in sample_texts(1500)]
    assert len(words) == 1500
    assert min(words) < 5
    assert max(words) > 300
