"""Candidates: their written form."""

import pytest

from mdpo.objectives import CHOSEN, REJECTED, REJECTED_IMAGE, Candidate


def test_names_of_the_paper_point_at_image_and_response():
    assert Candidate(image="chosen", response="chosen") == CHOSEN
    assert Candidate(image="chosen", response="rejected") == REJECTED
    assert Candidate(image="rejected", response="chosen") == REJECTED_IMAGE


def test_written_form_is_image_then_response():
    assert str(Candidate(image="rejected", response="chosen")) == "rejected/chosen"
    assert Candidate.parse("none/rejected") == Candidate(image="none", response="rejected")


@pytest.mark.parametrize("image", ["chosen", "rejected", "none"])
@pytest.mark.parametrize("response", ["chosen", "rejected"])
def test_every_combination_is_read_back(image: str, response: str):
    candidate = Candidate(image, response)
    assert Candidate.parse(str(candidate)) == candidate


@pytest.mark.parametrize(
    "text", ["", "chosen", "chosen/", "/chosen", "chosen/none", "blurred/chosen", "chosen/chosen/x"]
)
def test_other_forms_are_refused_with_the_known_slots(text: str):
    with pytest.raises(ValueError, match=r"must read IMAGE/RESPONSE") as caught:
        Candidate.parse(text)
    assert repr(text) in str(caught.value)
    assert "Images: chosen, rejected, none; responses: chosen, rejected." in str(caught.value)
