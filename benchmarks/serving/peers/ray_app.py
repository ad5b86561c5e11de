"""Ray Serve with one replica, as its documentation shows it."""

import os
import pickle
import sys
from pathlib import Path

import pandas as pd
import ray
from ray import serve


@serve.deployment(ray_actor_options={"num_cpus": 0})
class Scorer:
    def __init__(self):
        self.model = pickle.loads(Path(os.environ["MODEL"], "model.pkl").read_bytes())

    async def __call__(self, request):
        split = (await request.json())["dataframe_split"]
        frame = pd.DataFrame(split["data"], columns=split["columns"])
        return {"predictions": self.model.predict_proba(frame)[:, 1].tolist()}


if __name__ == "__main__":
    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=100 << 20)
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
    serve.run(Scorer.bind(), route_prefix="/", blocking=True)
