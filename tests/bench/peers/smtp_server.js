// smtp-server (npm) as a peer: a sink that reads each message to its end. smtp_server.js PORT FOLDER
// No login and no reverse look-up, since no other peer does either; every extension and limit else is as it comes.
const fs = require("fs");
const path = require("path");
const { SMTPServer } = require("smtp-server");

const [port, folder] = process.argv.slice(2);
const server = new SMTPServer({
  name: "bench.test",
  authOptional: true,
  disabledCommands: ["AUTH"],
  disableReverseLookup: true,
  size: 2 ** 31,
  key: fs.readFileSync(path.join(folder, "tls", "self-signed.key")),
  cert: fs.readFileSync(path.join(folder, "tls", "self-signed.pem")),
  onData(stream, session, done) {
    stream.on("data", () => {});
    stream.on("end", () => done());
  },
});
server.on("error", (error) => console.error(error.message));
server.listen(Number(port), "127.0.0.1");
process.on("SIGTERM", () => process.exit(0));
