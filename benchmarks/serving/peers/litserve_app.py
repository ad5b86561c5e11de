"""LitServe with batching, as its documentation shows it."""

import os
import pickle
import sys
from pathlib import Path

import litserve
import pandas as pd


class Scorer(litserve.LitAPI):
    def setup(self, device):
        self.model = pickle.loads(Path(os.environ["MODEL"], "model.pkl").read_bytes())

    def decode_request(self, request):
        return pd.DataFrame(request["dataframe_split"]["data"], columns=request["dataframe_split"]["columns"])

    def batch(self, inputs):
        return pd.concat(inputs, ignore_index=True), [len(one) for one in inputs]

    def predict(self, batch):
        frame, sizes = batch
        said = self.model.predict_proba(frame)[:, 1].tolist()
        return [[said.pop(0) for _ in range(size)] for size in sizes]

    def unbatch(self, output):
        return output

    def encode_response(self, output):
        return {"predictions": output}


if __name__ == "__main__":
    api = Scorer(max_batch_size=32, batch_timeout=0.005, api_path="/invocations")
    server = litserve.LitServer(api, accelerator="cpu", timeout=60)
    server.run(
        host="127.0.0.1", port=int(sys.argv[1]), num_api_servers=1, log_level="warning", generate_client_file=False
    )
