"""`POST /` as Hugging Face's InferenceClient uses it for classification: with `parameters`."""

import pytest


def test_a_client_that_sends_parameters_gets_a_list_of_labels_for_its_text(server):
    plain = server.post("/", {"inputs": "good", "raw_scores": False}).json
    reply = server.post("/", {"inputs": "good", "parameters": {}})
    assert reply.status == 200
    assert reply.json == [plain]
    assert [label["label"] for label in plain] == ["LABEL_0"]
    assert server.post("/", {"inputs": "good", "parameters": None}).json == [plain]
    assert server.post("/", {"inputs": "good", "parameters": {"top_k": None}}).json == [plain]


@pytest.mark.parametrize("parameters", [{"function_to_apply": "none"}, {"top_k": 1}])
def test_parameters_that_would_change_the_reply_are_refused(server, parameters):
    reply = server.post("/", {"inputs": "good", "parameters": parameters})
    assert reply.status == 422
    assert f"parameters.{next(iter(parameters))} is not served" in reply.json["error"]


@pytest.mark.parametrize("parameters", ["x", 1, [1]])
def test_parameters_that_are_none_are_refused(server, parameters):
    assert server.post("/", {"inputs": "good", "parameters": parameters}).status == 422
