// Run commands of the AWS SDK for JavaScript in one process: a start costs most of a second.
//
// Reads {"operation": ..., "input": {...}} line by line and answers {"answer": {...}} or {"error": {"name": ...}}.
// The endpoint is the first argument, the folder of node_modules the second.

import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const [endpoint, modules] = process.argv.slice(2);
const sdk = createRequire(`${modules}/`)("@aws-sdk/client-omics");
const client = new sdk.OmicsClient({
  endpoint,
  region: "us-east-1",
  credentials: { accessKeyId: "testing", secretAccessKey: "testing" },
  // The service has one host. AWS_DISABLE_HOST_PREFIX_INJECTION has no effect in this SDK.
  disableHostPrefix: true,
  maxAttempts: 1,
});

async function run({ operation, input }) {
  try {
    const { $metadata, ...answer } = await client.send(new sdk[`${operation}Command`](input));
    return { answer, status: $metadata.httpStatusCode };
  } catch (error) {
    return { error: { name: error.name, message: error.message, status: error.$metadata?.httpStatusCode } };
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  console.log(JSON.stringify(await run(JSON.parse(line))));
}
client.destroy();
