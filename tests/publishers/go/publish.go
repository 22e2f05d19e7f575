// Publishes with one of Go's libraries: `publish NAME URL`. Each logs what README.md says.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"log/slog"
	"os"
	"time"

	"github.com/charmbracelet/lipgloss"
	charm "github.com/charmbracelet/log"
	"github.com/hashicorp/go-hclog"
	"github.com/muesli/termenv"
	phuslu "github.com/phuslu/log"
	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/rs/zerolog"
	"github.com/sirupsen/logrus"
	"go.elastic.co/ecszerolog"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"k8s.io/klog/v2"
)

const (
	exchange = "logs"
	debug    = "cache is warm"
	info     = "order 4711 is paid"
	warning  = "disk is 91 % full"
	failure  = "payment failed"
	lines    = "two lines:\nthe second"
	critical = "no disk is left"
)

var cause = errors.New("card declined")

// sender publishes each write as a message, as these libraries write a record at once.
type sender struct{ channel *amqp.Channel }

func (s sender) send(message amqp.Publishing, key string) error {
	confirmation, err := s.channel.PublishWithDeferredConfirm(exchange, key, false, false, message)
	if err != nil {
		return err
	}
	confirmation.Wait()
	return nil
}

func (s sender) Write(line []byte) (int, error) {
	body := append([]byte(nil), line...)
	return len(line), s.send(amqp.Publishing{Body: body}, "")
}

func (s sender) Sync() error { return nil }

func withZap(s sender, encoder zapcore.Encoder) {
	logger := zap.New(zapcore.NewCore(encoder, s, zapcore.DebugLevel), zap.AddCaller(),
		zap.AddStacktrace(zapcore.ErrorLevel), zap.Fields(zap.Int("order", 4711)))
	logger.Debug(debug)
	logger.Info(info)
	logger.Warn(warning)
	logger.Error(failure, zap.Error(cause))
	logger.Info(lines)
	logger.DPanic(critical)
}

func withLogrus(s sender, formatter logrus.Formatter) {
	logger := logrus.New()
	logger.SetOutput(s)
	logger.SetLevel(logrus.DebugLevel)
	logger.SetFormatter(formatter)
	logger.ExitFunc = func(int) {}
	entry := logger.WithField("order", 4711)
	entry.Debug(debug)
	entry.Info(info)
	entry.Warn(warning)
	entry.WithError(cause).Error(failure)
	entry.Info(lines)
	entry.Fatal(critical)
}

func withSlog(handler slog.Handler) {
	logger := slog.New(handler).With("order", 4711)
	logger.Debug(debug)
	logger.Info(info)
	logger.Warn(warning)
	logger.Error(failure, "err", cause)
	logger.Info(lines)
	logger.Log(context.Background(), slog.LevelError+4, critical)
}

func withZerolog(logger zerolog.Logger) {
	logger = logger.With().Int("order", 4711).Logger()
	logger.Debug().Msg(debug)
	logger.Info().Msg(info)
	logger.Warn().Msg(warning)
	logger.Error().Err(cause).Msg(failure)
	logger.Info().Msg(lines)
	logger.WithLevel(zerolog.FatalLevel).Msg(critical)
}

func withHclog(s sender, json bool) {
	logger := hclog.New(&hclog.LoggerOptions{
		Name: "shop", Output: s, Level: hclog.Debug, JSONFormat: json,
	})
	logger.Debug(debug)
	logger.Info(info, "order", 4711)
	logger.Warn(warning)
	logger.Error(failure, "error", cause)
	logger.Info(lines)
}

func withCharm(s sender, formatter charm.Formatter) {
	logger := charm.NewWithOptions(s, charm.Options{
		ReportTimestamp: true, Formatter: formatter, Level: charm.DebugLevel,
	})
	renderer := lipgloss.DefaultRenderer()
	renderer.SetColorProfile(termenv.ANSI256)
	logger.SetColorProfile(termenv.ANSI256)
	logger.Debug(debug)
	logger.Info(info, "order", 4711)
	logger.Warn(warning)
	logger.Error(failure, "err", cause)
	logger.Info(lines)
	logger.Log(charm.FatalLevel, critical)
}

func development() zapcore.EncoderConfig {
	config := zap.NewDevelopmentEncoderConfig()
	config.EncodeLevel = zapcore.CapitalColorLevelEncoder
	return config
}

var debugLevel = &slog.HandlerOptions{Level: slog.LevelDebug}

var publishers = []struct {
	name string
	run  func(sender)
}{
	{"zap-json", func(s sender) { withZap(s, zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig())) }},
	{"zap-console", func(s sender) {
		withZap(s, zapcore.NewConsoleEncoder(zap.NewProductionEncoderConfig()))
	}},
	{"zap-development", func(s sender) { withZap(s, zapcore.NewConsoleEncoder(development())) }},
	{"zerolog-json", func(s sender) { withZerolog(zerolog.New(s).With().Timestamp().Logger()) }},
	{"zerolog-console", func(s sender) {
		withZerolog(zerolog.New(zerolog.ConsoleWriter{Out: s, NoColor: true}).With().Timestamp().Logger())
	}},
	{"zerolog-console-colour", func(s sender) {
		withZerolog(zerolog.New(zerolog.ConsoleWriter{Out: s}).With().Timestamp().Logger())
	}},
	{"ecszerolog", func(s sender) { withZerolog(ecszerolog.New(s)) }},
	{"slog-json", func(s sender) { withSlog(slog.NewJSONHandler(s, debugLevel)) }},
	{"slog-text", func(s sender) { withSlog(slog.NewTextHandler(s, debugLevel)) }},
	{"slog-default", func(s sender) {
		log.SetOutput(s)
		slog.SetLogLoggerLevel(slog.LevelDebug)
		withSlog(slog.Default().Handler())
	}},
	{"logrus-json", func(s sender) { withLogrus(s, &logrus.JSONFormatter{}) }},
	{"logrus-text", func(s sender) { withLogrus(s, &logrus.TextFormatter{DisableColors: true}) }},
	{"logrus-colour", func(s sender) { withLogrus(s, &logrus.TextFormatter{ForceColors: true}) }},
	{"logrus-colour-full", func(s sender) {
		withLogrus(s, &logrus.TextFormatter{ForceColors: true, FullTimestamp: true})
	}},
	{"log-standard", func(s sender) {
		logger := log.New(s, "shop: ", log.LstdFlags)
		for _, text := range []string{debug, info, warning, failure, lines, critical} {
			logger.Print(text)
		}
	}},
	{"klog", func(s sender) {
		flags := flag.NewFlagSet("klog", flag.PanicOnError)
		klog.InitFlags(flags)
		_ = flags.Parse([]string{"-logtostderr=false", "-one_output=true"})
		klog.SetOutput(s)
		for _, step := range []func(){
			func() { klog.Info(info) }, func() { klog.Warning(warning) },
			func() { klog.ErrorS(cause, failure, "order", 4711) }, func() { klog.Info(lines) },
		} {
			step()
			klog.Flush()
		}
	}},
	{"hclog-text", func(s sender) { withHclog(s, false) }},
	{"hclog-json", func(s sender) { withHclog(s, true) }},
	{"charm-text", func(s sender) { withCharm(s, charm.TextFormatter) }},
	{"charm-logfmt", func(s sender) { withCharm(s, charm.LogfmtFormatter) }},
	{"phuslu-json", func(s sender) {
		logger := phuslu.Logger{Level: phuslu.DebugLevel, Writer: phuslu.IOWriter{Writer: s}}
		logger.Debug().Msg(debug)
		logger.Info().Int("order", 4711).Msg(info)
		logger.Warn().Msg(warning)
		logger.Error().Err(cause).Msg(failure)
		logger.Info().Msg(lines)
	}},
	{"amqp091-properties", func(s sender) {
		for _, one := range [][2]string{
			{"DEBUG", debug}, {"INFO", info}, {"WARN", warning}, {"ERROR", failure}, {"INFO", lines},
		} {
			err := s.send(amqp.Publishing{
				Body: []byte(one[1]), ContentType: "text/plain", DeliveryMode: amqp.Persistent,
				Timestamp: time.Now(), AppId: "shop", Expiration: "60000",
				Headers: amqp.Table{
					"severity": one[0], "int16": int16(-7), "int32": int32(4711), "int64": int64(1) << 40,
					"float32": float32(0.5), "float64": 0.25, "true": true, "nothing": nil,
					"bytes": []byte{1, 255}, "decimal": amqp.Decimal{Scale: 2, Value: 1234},
					"time": time.Now(), "table": amqp.Table{"host": "web-1"}, "list": []interface{}{"a", int32(1)},
				},
			}, "shop.orders")
			if err != nil {
				panic(err)
			}
		}
	}},
}

func main() {
	if len(os.Args) < 3 {
		for _, publisher := range publishers {
			fmt.Println(publisher.name)
		}
		return
	}
	connection, err := amqp.Dial(os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	channel, err := connection.Channel()
	if err == nil {
		err = channel.Confirm(false)
	}
	if err != nil {
		log.Fatal(err)
	}
	for _, publisher := range publishers {
		if publisher.name == os.Args[1] {
			publisher.run(sender{channel})
		}
	}
	if err := connection.Close(); err != nil {
		log.Fatal(err)
	}
}
