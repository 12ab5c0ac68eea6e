// The two Redis clients of Node behind the three calls that the scripts here need.

const where = (address) => (address.startsWith("/") ? { path: address } : { host: "127.0.0.1", port: Number(address) });

export async function connect(library, address, password) {
  return library === "ioredis" ? throughIoredis(address, password) : throughRedis(address, password);
}

async function throughIoredis(address, password) {
  const { default: Redis } = await import("ioredis");
  const client = new Redis({ ...where(address), password, maxRetriesPerRequest: 0, retryStrategy: () => null });
  client.on("error", () => {}); // told through the calls as well
  return {
    call: (...words) => client.call(...words),
    pipeline: async (requests) => {
      const batch = client.pipeline();
      for (const [word, ...rest] of requests) batch.call(word, ...rest);
      return (await batch.exec()).map(([error, answer]) => {
        if (error) throw error;
        return answer;
      });
    },
    close: () => client.quit(),
  };
}

async function throughRedis(address, password) {
  const { createClient } = await import("redis");
  const client = createClient({ socket: { ...where(address), reconnectStrategy: false }, password });
  client.on("error", () => {}); // told through the calls as well
  await client.connect();
  return {
    call: (...words) => client.sendCommand(words),
    pipeline: (requests) => Promise.all(requests.map((words) => client.sendCommand(words))), // sent in one write
    close: () => client.close(),
  };
}
