// Publishes with one of Node's libraries: `publish.js NAME URL`. Each logs what README.md says.
"use strict";

const { Writable } = require("node:stream");
const amqp = require("amqplib");

const EXCHANGE = "logs";
const TEXTS = {
  debug: "cache is warm",
  info: "order 4711 is paid",
  warning: "disk is 91 % full",
  error: "payment failed",
  lines: "two lines:\nthe second",
  critical: "no disk is left",
};

/** A stream of lines, as these libraries write to; each chunk is a message. */
const streamTo = (send) =>
  new Writable({
    decodeStrings: true,
    write(chunk, _, done) {
      send(chunk);
      done();
    },
  });

/** Log each text at its level, by the names that the library has for them. */
function logAll(logger, { warning = "warn", critical = "fatal", cause = (error) => error } = {}) {
  logger.debug(TEXTS.debug);
  logger.info(TEXTS.info);
  logger[warning](TEXTS.warning);
  logger.error(...[cause(new TypeError("card declined")), TEXTS.error].flat());
  logger.info(TEXTS.lines);
  logger[critical]?.(TEXTS.critical);
}

function winston(send, format, levels) {
  const library = require("winston");
  const logger = library.createLogger({
    level: "debug",
    ...levels,
    format: format(library.format),
    transports: [new library.transports.Stream({ stream: streamTo(send), eol: "" })],
  });
  logger.debug(TEXTS.debug, { order: 4711 });
  logger.info(TEXTS.info, { order: 4711 });
  (logger.warning ?? logger.warn).call(logger, TEXTS.warning);
  logger.error(TEXTS.error, { error: new TypeError("card declined") });
  logger.info(TEXTS.lines);
  logger.crit?.(TEXTS.critical);
}

const sdk = (send, encode) => {
  const { LoggerProvider, SimpleLogRecordProcessor } = require("@opentelemetry/sdk-logs");
  const { SeverityNumber } = require("@opentelemetry/api-logs");
  const exporter = {
    export(records, done) {
      for (const record of records) send(encode(record), { contentType: "application/json" });
      done({ code: 0 });
    },
    shutdown: async () => {},
    forceFlush: async () => {},
  };
  const processor = new SimpleLogRecordProcessor({ exporter });
  const logger = new LoggerProvider({ processors: [processor] }).getLogger("shop");
  const numbers = { debug: "DEBUG", info: "INFO", warning: "WARN", error: "ERROR", lines: "INFO", critical: "FATAL" };
  for (const [name, body] of Object.entries(TEXTS)) {
    // The text of the severity is left out: the number must do.
    logger.emit({ severityNumber: SeverityNumber[numbers[name]], body, attributes: { "shop.order": 4711 } });
  }
};

const PUBLISHERS = {
  "winston-json": (send) => winston(send, (f) => f.combine(f.timestamp(), f.errors({ stack: true }), f.json())),
  "winston-simple": (send) => winston(send, (f) => f.simple()),
  "winston-colour": (send) => winston(send, (f) => f.combine(f.colorize(), f.simple())),
  "winston-printf": (send) =>
    winston(send, (f) => f.combine(f.timestamp(), f.printf((i) => `${i.timestamp} [${i.level}]: ${i.message}`))),
  "winston-syslog-levels": (send) =>
    winston(send, (f) => f.json(), { levels: require("winston").config.syslog.levels }),
  "winston-logstash": (send) => winston(send, (f) => f.combine(f.timestamp(), f.logstash())),
  "ecs-winston-format": (send) =>
    winston(send, () => require("@elastic/ecs-winston-format").ecsFormat({ convertErr: true })),
  pino: (send) => logAll(require("pino")({ level: "debug" }, streamTo(send))),
  "pino-labels": (send) => {
    const formatters = { level: (label) => ({ level: label }) };
    const options = { level: "debug", messageKey: "message", formatters };
    logAll(require("pino")({ ...options, timestamp: require("pino").stdTimeFunctions.isoTime }, streamTo(send)));
  },
  "ecs-pino-format": (send) =>
    logAll(require("pino")({ level: "debug", ...require("@elastic/ecs-pino-format").ecsFormat() }, streamTo(send))),
  bunyan: (send) =>
    logAll(require("bunyan").createLogger({ name: "shop", level: "debug", stream: streamTo(send) })),
  "log4js-basic": (send) => log4js(send, { type: "basic" }),
  "log4js-coloured": (send) => log4js(send, { type: "coloured" }),
  tslog: (send) => {
    const { Logger } = require("tslog");
    const logger = new Logger({ type: "hidden", name: "shop" });
    logger.attachTransport((line) => send(JSON.stringify(line)));
    logAll(logger, { cause: (error) => [TEXTS.error, error] });
  },
  "opentelemetry-otlp-json": (send) => {
    const { JsonLogsSerializer } = require("@opentelemetry/otlp-transformer");
    sdk(send, (record) => Buffer.from(JsonLogsSerializer.serializeRequest([record])));
  },
  // Properties as programs set them by hand: Date.now() counts milliseconds.
  "amqplib-properties": (send) => {
    for (const [name, message] of Object.entries(TEXTS)) {
      const level = name === "lines" ? "info" : name;
      send(JSON.stringify({ level, message }), {
        contentType: "application/json",
        contentEncoding: "utf-8",
        timestamp: Date.now(),
        messageId: `shop-${name}`,
        appId: "shop",
        type: "log",
        correlationId: "4711",
        persistent: true,
        headers: {
          traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
          attempt: 1,
          ratio: 0.25,
          big: 2 ** 40,
          tags: ["a", "b"],
          nested: { host: "web-1", up: true, none: null },
          bytes: Buffer.from([255, 0, 1]),
          when: { "!": "timestamp", value: 1795651200 },
        },
      });
    }
  },
};

function log4js(send, layout) {
  const library = require("log4js");
  const appender = {
    configure: (config, layouts) => {
      const format = layouts.layout(config.layout.type, config.layout);
      return (event) => send(format(event));
    },
  };
  library.configure({
    appenders: { out: { type: appender, layout } },
    categories: { default: { appenders: ["out"], level: "debug" } },
  });
  logAll(library.getLogger("shop"), { cause: (error) => [TEXTS.error, error] });
}

async function main(name, url) {
  const connection = await amqp.connect(url);
  const channel = await connection.createConfirmChannel();
  const send = (body, options) => channel.publish(EXCHANGE, "", Buffer.from(body), options);
  await PUBLISHERS[name](send);
  await new Promise((done) => setImmediate(done)); // streams write a turn later
  await channel.waitForConfirms();
  await connection.close();
}

const [name, url] = process.argv.slice(1);
if (name === undefined) console.log(Object.keys(PUBLISHERS).join("\n"));
else main(name, url);
