import ch.qos.logback.classic.Level;
import ch.qos.logback.classic.LoggerContext;
import ch.qos.logback.classic.encoder.JsonEncoder;
import ch.qos.logback.classic.encoder.PatternLayoutEncoder;
import ch.qos.logback.classic.spi.ILoggingEvent;
import ch.qos.logback.core.AppenderBase;
import ch.qos.logback.core.encoder.Encoder;
import co.elastic.logging.jul.EcsFormatter;
import co.elastic.logging.logback.EcsEncoder;
import com.rabbitmq.client.AMQP;
import com.rabbitmq.client.Channel;
import com.rabbitmq.client.Connection;
import com.rabbitmq.client.ConnectionFactory;
import de.siegmar.logbackgelf.GelfEncoder;
import java.io.ByteArrayInputStream;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.util.Date;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.logging.Formatter;
import java.util.logging.Handler;
import java.util.logging.LogRecord;
import java.util.logging.SimpleFormatter;
import java.util.logging.XMLFormatter;
import net.logstash.logback.encoder.LogstashEncoder;
import org.apache.logging.log4j.core.config.ConfigurationSource;
import org.apache.logging.log4j.core.config.Configurator;
import org.slf4j.LoggerFactory;
import org.slf4j.MDC;

/** Publishes with one of Java's libraries: `Publish NAME URL`. Each logs what README.md says. */
public final class Publish {
    static final String EXCHANGE = "logs";
    static final String DEBUG = "cache is warm";
    static final String INFO = "order 4711 is paid";
    static final String WARNING = "disk is 91 % full";
    static final String ERROR = "payment failed";
    static final String LINES = "two lines:\nthe second";
    static final String CRITICAL = "no disk is left";

    /** What one of the publishers does with the URL of the broker. */
    interface Program {
        void run(String url) throws Exception;
    }

    static final Map<String, Program> PUBLISHERS = new LinkedHashMap<>();

    static {
        PUBLISHERS.put("logback-pattern", url -> logback(url, pattern(
            "%d{HH:mm:ss.SSS} [%thread] %-5level %logger{36} - %msg%n")));
        PUBLISHERS.put("logback-date", url -> logback(url, pattern(
            "%d %-5level [%thread] %logger{20} : %msg%n")));
        PUBLISHERS.put("logback-highlight", url -> logback(url, pattern(
            "%d{ISO8601} %highlight(%-5level) %cyan(%logger) - %msg%n")));
        PUBLISHERS.put("logback-json", url -> logback(url, new JsonEncoder()));
        PUBLISHERS.put("logstash-logback-encoder", url -> logback(url, new LogstashEncoder()));
        PUBLISHERS.put("logback-ecs-encoder", url -> {
            EcsEncoder encoder = new EcsEncoder();
            encoder.setServiceName("shop");
            logback(url, encoder);
        });
        PUBLISHERS.put("logback-gelf", url -> logback(url, new GelfEncoder()));
        PUBLISHERS.put("spring-amqp-logback", url -> spring(url, null));
        PUBLISHERS.put("spring-amqp-logstash", url -> spring(url, new LogstashEncoder()));
        PUBLISHERS.put("log4j2-pattern", url -> log4j(url,
            "<PatternLayout pattern=\"%d [%t] %-5p %c: %m%n\"/>"));
        PUBLISHERS.put("log4j2-highlight", url -> log4j(url,
            "<PatternLayout disableAnsi=\"false\" pattern=\"%d %highlight{%p} %c: %m%n\"/>"));
        for (String template : new String[] {"Ecs", "Gelf", "JsonLayout", "LogstashJsonEventLayoutV1", "GcpLayout"}) {
            String file = template.endsWith("Layout") || template.endsWith("V1") ? template : template + "Layout";
            PUBLISHERS.put("log4j2-template-" + file.replaceAll("([a-z])([A-Z])", "$1-$2").toLowerCase(), url ->
                log4j(url, "<JsonTemplateLayout eventTemplateUri=\"classpath:" + file + ".json\"/>"));
        }
        PUBLISHERS.put("log4j2-gelf", url -> log4j(url, "<GelfLayout host=\"shop\" compressionType=\"OFF\"/>"));
        PUBLISHERS.put("log4j2-gelf-gzip", url -> log4j(url,
            "<GelfLayout host=\"shop\" compressionType=\"GZIP\" compressionThreshold=\"0\"/>"));
        PUBLISHERS.put("log4j2-rfc5424", url -> log4j(url,
            "<Rfc5424Layout appName=\"shop\" facility=\"LOCAL0\" newLine=\"true\"/>"));
        PUBLISHERS.put("java-util-logging", url -> jul(url, new SimpleFormatter()));
        PUBLISHERS.put("java-util-logging-xml", url -> jul(url, new XMLFormatter()));
        PUBLISHERS.put("jul-ecs-formatter", url -> jul(url, new EcsFormatter()));
        PUBLISHERS.put("amqp-client-headers", Publish::headers);
    }

    /** A confirmed channel of its own. */
    static final class Sender implements AutoCloseable {
        final Connection connection;
        final Channel channel;

        Sender(String url) throws Exception {
            ConnectionFactory factory = new ConnectionFactory();
            factory.setUri(url);
            connection = factory.newConnection();
            channel = connection.createChannel();
            channel.confirmSelect();
        }

        void send(byte[] body, String key, AMQP.BasicProperties properties) {
            try {
                channel.basicPublish(EXCHANGE, key, properties, body);
                channel.waitForConfirmsOrDie(10_000);
            } catch (Exception error) {
                throw new IllegalStateException(error);
            }
        }

        @Override
        public void close() throws Exception {
            connection.close();
        }
    }

    static PatternLayoutEncoder pattern(String pattern) {
        PatternLayoutEncoder encoder = new PatternLayoutEncoder();
        encoder.setPattern(pattern);
        return encoder;
    }

    /** logback, with an appender as programs write it: what the encoder makes is the body. */
    static void logback(String url, Encoder<ILoggingEvent> encoder) throws Exception {
        LoggerContext context = (LoggerContext) LoggerFactory.getILoggerFactory();
        try (Sender sender = new Sender(url)) {
            AppenderBase<ILoggingEvent> appender = new AppenderBase<>() {
                @Override
                protected void append(ILoggingEvent event) {
                    sender.send(encoder.encode(event), "", null);
                }
            };
            encoder.setContext(context);
            encoder.start();
            appender.setContext(context);
            appender.start();
            var root = context.getLogger("ROOT");
            root.detachAndStopAllAppenders();
            context.getLogger("com.rabbitmq").setLevel(Level.OFF);
            root.addAppender(appender);
            root.setLevel(Level.DEBUG);
            slf4j();
            root.detachAndStopAllAppenders();
        }
    }

    /** Spring's appender, which sets headers, properties and the routing key by itself. */
    static void spring(String url, Encoder<ILoggingEvent> encoder) throws Exception {
        URI at = new URI(url);
        LoggerContext context = (LoggerContext) LoggerFactory.getILoggerFactory();
        var appender = new org.springframework.amqp.rabbit.logback.AmqpAppender();
        appender.setContext(context);
        appender.setHost(at.getHost());
        appender.setPort(at.getPort());
        appender.setExchangeName(EXCHANGE);
        appender.setApplicationId("shop");
        appender.setRoutingKeyPattern("logback.%p");
        appender.setGenerateId(true);
        appender.setCharset("UTF-8");
        if (encoder == null) {
            var layout = new ch.qos.logback.classic.PatternLayout();
            layout.setContext(context);
            layout.setPattern("%m%n");
            layout.start();
            appender.setLayout(layout);
        } else {
            encoder.setContext(context);
            encoder.start();
            appender.setEncoder(encoder);
        }
        appender.start();
        var root = context.getLogger("ROOT");
        root.detachAndStopAllAppenders();
        root.setLevel(Level.OFF);
        var shop = context.getLogger("shop");
        shop.setLevel(Level.DEBUG);
        shop.addAppender(appender);
        // It sends from threads of its own: what arrives shows when that is done.
        CountDownLatch arrived = new CountDownLatch(5);
        try (Sender sender = new Sender(url)) {
            String queue = sender.channel.queueDeclare().getQueue();
            sender.channel.queueBind(queue, EXCHANGE, "");
            sender.channel.basicConsume(queue, true, (tag, delivery) -> arrived.countDown(), tag -> { });
            slf4j();
            if (!arrived.await(30, TimeUnit.SECONDS)) {
                throw new IllegalStateException(arrived.getCount() + " messages are missing");
            }
        }
        shop.detachAndStopAllAppenders();
    }

    static void slf4j() {
        var logger = LoggerFactory.getLogger("shop");
        MDC.put("order", "4711");
        logger.debug(DEBUG);
        logger.info(INFO);
        logger.warn(WARNING);
        logger.error(ERROR, new IllegalStateException("card declined"));
        logger.info(LINES);
    }

    /** log4j 2, with an appender as programs write it: what the layout makes is the body. */
    static void log4j(String url, String layout) throws Exception {
        String config = "<Configuration status=\"error\"><Appenders><Shop name=\"shop\">" + layout
            + "</Shop></Appenders><Loggers><Root level=\"off\"/><Logger name=\"shop\" level=\"debug\">"
            + "<AppenderRef ref=\"shop\"/></Logger></Loggers></Configuration>";
        try (Sender sender = new Sender(url)) {
            ShopAppender.sender = sender;
            var source = new ConfigurationSource(new ByteArrayInputStream(config.getBytes(StandardCharsets.UTF_8)));
            try (var context = Configurator.initialize(null, source)) {
                var logger = context.getLogger("shop");
                logger.debug(DEBUG);
                logger.info(INFO);
                logger.warn(WARNING);
                logger.error(ERROR, new IllegalStateException("card declined"));
                logger.info(LINES);
                logger.fatal(CRITICAL);
            }
        }
    }

    static void jul(String url, Formatter formatter) throws Exception {
        try (Sender sender = new Sender(url)) {
            var logger = java.util.logging.Logger.getLogger("shop");
            logger.setUseParentHandlers(false);
            logger.setLevel(java.util.logging.Level.ALL);
            logger.addHandler(new Handler() {
                @Override
                public void publish(LogRecord record) {
                    sender.send(formatter.format(record).getBytes(StandardCharsets.UTF_8), "", null);
                }

                @Override
                public void flush() {
                    // Each record is sent at once.
                }

                @Override
                public void close() {
                    // The sender is closed by who opened it.
                }
            });
            logger.fine(DEBUG);
            logger.info(INFO);
            logger.warning(WARNING);
            logger.log(java.util.logging.Level.SEVERE, ERROR, new IllegalStateException("card declined"));
            logger.info(LINES);
        }
    }

    /** The text is the body; the level is a header. */
    static void headers(String url) throws Exception {
        String[][] all = {{"DEBUG", DEBUG}, {"INFO", INFO}, {"WARN", WARNING}, {"ERROR", ERROR}, {"INFO", LINES}, {"FATAL", CRITICAL}};
        try (Sender sender = new Sender(url)) {
            for (String[] one : all) {
                Map<String, Object> headers = Map.of("level", one[0], "order", 4711, "ratio", 0.25f, "logger", "shop");
                sender.send(one[1].getBytes(StandardCharsets.UTF_8), "shop", new AMQP.BasicProperties.Builder()
                    .contentType("text/plain").deliveryMode(2).timestamp(new Date()).headers(headers).build());
            }
        }
    }

    public static void main(String[] arguments) throws Exception {
        if (arguments.length == 0) {
            PUBLISHERS.keySet().forEach(System.out::println);
            return;
        }
        PUBLISHERS.get(arguments[0]).run(arguments[1]);
        System.exit(0);
    }
}
