"""Writes, or reads and deletes, the keys of the environment's KEYS through its GATEWAYS."""

import base64
import json
import os
import sys

import dotring

client = dotring.Client(os.environ["GATEWAYS"].split(","), cache_bytes=1 << 20)
for key in map(base64.b64decode, json.loads(os.environ["KEYS"])):
    session, value = client.session(), b"value of " + key
    if sys.argv[1] == "write":
        session.put(key, value, "text/x-python")
        continue
    for _ in range(2):  # the second time from the cache
        got = session.get(key)
        assert (got.data, got.content_type) == (value, "text/x-python"), (key, got)
    session.delete(key)
    try:
        raise AssertionError((key, session.get(key)))
    except dotring.NoValue:
        pass
print("done")
