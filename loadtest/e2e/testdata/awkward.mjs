// Writes, or reads and deletes, the keys of the environment's KEYS through its GATEWAYS.
import assert from "node:assert/strict";
import { Client, NoValue } from "../../../openapi/sdk/typescript/src/index.js";

const client = new Client(process.env.GATEWAYS.split(","), { cacheBytes: 1 << 20 });
for (const text of JSON.parse(process.env.KEYS)) {
  const key = Buffer.from(text, "base64");
  const [session, value] = [client.session(), Buffer.concat([Buffer.from("value of "), key])];
  if (process.argv[2] === "write") {
    await session.put(key, value, "text/x-node");
    continue;
  }
  for (let i = 0; i < 2; i++) { // the second time from the cache
    const got = await session.get(key);
    assert.deepEqual([Buffer.from(got.data), got.contentType], [value, "text/x-node"], String(key));
  }
  await session.delete(key);
  await assert.rejects(session.get(key), NoValue);
}
console.log("done");
