// The service that Restate calls: one handler of three durable steps. RACE_MODULES is where its packages are.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

// The SDK wants a function that Node has since version 22.
Promise.withResolvers ??= function () {
  const made = {};
  made.promise = new Promise((resolve, reject) => Object.assign(made, { resolve, reject }));
  return made;
};

const require = createRequire(pathToFileURL(process.env.RACE_MODULES + "/"));
const restate = require("@restatedev/restate-sdk");
const record = "abcdefghijklmnopqrstuvwxyz".repeat(4).slice(0, 100);

const service = restate.service({
  name: "Race",
  handlers: {
    job: async (context) => {
      await context.run("open", () => record);
      await context.run("append", () => record);
      await context.run("append again", () => record);
      return "done";
    },
  },
});

restate.serve({ services: [service], port: Number(process.env.RACE_PORT) });
