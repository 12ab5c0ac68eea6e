// Unfinished transfers, posted by the pipe. Run: npm ci && TRANSFER_WHSEC=whsec_... PORT=8000 node server.mjs
import { createHmac, timingSafeEqual } from "node:crypto";
import express from "express";

const keys = process.env.TRANSFER_WHSEC.split(" ").map((secret) => Buffer.from(secret.slice("whsec_".length), "base64"));

function genuine(headers, body) {
  const [id, sent, given] = ["id", "timestamp", "signature"].map((name) => headers[`webhook-${name}`] ?? "");
  const signed = keys.map((key) => Buffer.from(`v1,${createHmac("sha256", key).update(`${id}.${sent}.`).update(body).digest("base64")}`));
  const same = (one, other) => one.length === other.length && timingSafeEqual(one, other);
  return Math.abs(Date.now() / 1000 - Number(sent)) < 300 && given.split(" ").some((one) => signed.some((other) => same(Buffer.from(one), other)));
}

const app = express();
app.post("/unfinished", express.raw({ type: () => true, limit: "100mb" }), (request, response) => {
  if (!genuine(request.headers, request.body)) return response.sendStatus(401);
  const event = JSON.parse(request.body);
  if (event.type === "session.unfinished" && Buffer.from(event.records.at(-1), "base64").toString() !== "debited") {
    // Debit here, once for each event.session (a unique key): the pipe, or an eavesdropper, may send it again.
    return response.json({ append: [Buffer.from("debited").toString("base64")], store: 0 });
  }
  return response.status(204).end(); // done: the session is deleted
});
const server = app.listen(Number(process.env.PORT), "127.0.0.1", () => console.log(`listening on ${server.address().port}`));
