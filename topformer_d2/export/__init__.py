"""ONNX and OpenVINO files of trained models, each checked against the model that it came from."""
