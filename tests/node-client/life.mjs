// A session's whole life through one of the two Redis clients of Node: `node life.mjs ioredis|redis ADDRESS [PASSWORD]`.
// ADDRESS is `port` on the loopback address or the path of a Unix socket. Prints one JSON document of what was answered.

import { connect } from "./connect.mjs";

const [, , library, address, password] = process.argv;
const { call, pipeline, close } = await connect(library, address, password);

const refused = async (...words) => {
  try {
    return { answer: await call(...words) };
  } catch (error) {
    return error.message.split(" ")[0];
  }
};

const id = await call("NEW", "transfer", "debit 5", "from a");
const [appended, replaced, renewed, ping] = await pipeline([
  ["APPEND", id, "credit 5", "to b"],
  ["REPLACE", id, "all done"],
  ["APPEND", id, "bytes \u00e9"],
  ["PING", "in order"],
]);
const shown = await call("SHOW", id);
const records = (Array.isArray(shown) ? shown[shown.indexOf("records") + 1] : shown.records).map(String);
const deleted = await call("DELETE", id);
const closed = await refused("APPEND", id, "too late");
const many = await pipeline(Array.from({ length: 500 }, () => ["NEW", "7", "one of many"]));
const gone = await pipeline(many.map((each) => ["DELETE", each]));

console.log(
  JSON.stringify({
    id, appended, replaced, renewed, ping, records, deleted,
    distinct: new Set(many).size,
    gone: gone.filter((answer) => answer === "OK").length,
    errors: {
      closed,
      unknown_kind: await refused("NEW", "nobody"),
      no_session: await refused("DELETE", "1-999999"),
      bad_id: await refused("APPEND", "seven", "x"),
      unknown_command: await refused("FLUSHALL"),
    },
  }),
);
await close();
