package config

// The types of this file are the shape of the configuration file. The decoder, the merge of `defaults` and the JSON Schema
// all follow them, and the comments on the fields are the manual: the schema carries them to the editor, which is why they
// speak to an operator. The tags:
//
//	key       the name in the file
//	default   what counts where the key is absent, as it would stand in the file
//	required  the key must be there
//	own       the key is not inherited: `defaults` may not hold it
//	main      only the main file may hold the key, not an included one
//	only      the key belongs to sinks of this type
//	oneof     exactly one key of this group must be there
//	stream    the key belongs to streams that have this: overlap or sweeps
//	keys      what the keys of a map are: marketplaces, groups or streams of the catalogue
//	market    only accounts of the marketplaces that name the key in Marketplace.Keys have it
//	later     the key is known but refused as not supported yet; removing the tag turns it on

// document is the main file.
type document struct {
	// More files with accounts and sinks: a path or a list of paths, relative to this file; `*`, `?` and `[a-z]` match as in
	// a shell. A pattern may match nothing, a plain path must exist. Default: none.
	Include pathPatterns `key:"include" main:"true"`
	// How long syncd may take to finish what is in flight when it is stopped. A duration above 0.
	ShutdownTimeout opt[positiveDuration] `key:"shutdown_timeout" default:"10s" main:"true"`
	// What syncd keeps, and where.
	State stateSection `key:"state" main:"true"`
	// The HTTP server: metrics, health, status page, API.
	Server serverSection `key:"server" main:"true"`
	// What is logged on standard error, and how.
	Log logSection `key:"log" main:"true"`
	// Settings by marketplace, merged under every account of it in all files: what an account says itself wins. Maps merge
	// by key; lists and single values replace; token_file and token_env count as one key. Default: none.
	Defaults table[pending[accountEntry]] `key:"defaults" keys:"marketplaces" main:"true"`
	// The sellers to poll. At least one, here or in an included file.
	Accounts list[pending[accountEntry]] `key:"accounts"`
	// Where events go. Without a sink they are only kept.
	Sinks list[pending[sinkEntry]] `key:"sinks"`
}

type stateSection struct {
	// The state file, created with mode 0600. A relative path starts at the directory of this file. One daemon a file.
	Path opt[filePath] `key:"path" default:"/var/lib/syncd/syncd.db"`
	// The largest size of the state file. Polling stops when it is reached.
	MaxSize opt[size] `key:"max_size" default:"10GiB" later:"true"`
	// How long an event is kept after it was recorded, and longer while a sink still needs it. A duration above 0.
	KeepEvents opt[positiveDuration] `key:"keep_events" default:"7d"`
	// How long a dead letter is kept after it was given up: an event that an endpoint refused for good, that was tried for
	// retry.give_up_after, or that a removed sink had not got. One that expires is counted. A duration above 0.
	KeepDeadLetters opt[positiveDuration] `key:"keep_dead_letters" default:"90d"`
	// How long the last version of an item is kept after its last change.
	KeepRecords opt[positiveDuration] `key:"keep_records" default:"400d" later:"true"`
}

type serverSection struct {
	// The address to listen on, host:port; "" turns the server off, and with it `syncd healthcheck`.
	Listen opt[listenAddress] `key:"listen" default:"127.0.0.1:9469"`
	// TLS and basic authentication.
	WebConfig opt[filePath] `key:"web_config" later:"true"`
	// A file with the bearer token for requests that change something: one line of at least 16 visible ASCII characters. Found as
	// token_file is; "" for none. Without one such requests are refused where other machines can reach the server. The commands
	// read it too.
	APITokenFile opt[optionalSecretFile] `key:"api_token_file" default:""`
}

type logSection struct {
	// The least important messages to log: debug, info, warn or error.
	Level opt[logLevel] `key:"level" default:"info"`
	// auto is tint on a terminal and text elsewhere; text is logfmt; json is one object a line; tint is coloured text.
	Format opt[LogFormat] `key:"format" default:"auto"`
}

type accountEntry struct {
	// The name of the account: a-z, 0-9 and -, not starting with -. Unique over all files, and part of every event id: a new
	// name is a new account.
	Name opt[name] `key:"name" required:"true" own:"true"`
	// The marketplace that the account belongs to.
	Marketplace opt[text] `key:"marketplace" own:"true"`
	// The id of the business ("cabinet") on the marketplace: the seller that the account belongs to.
	BusinessID opt[marketID] `key:"business_id" required:"true" market:"true" own:"true"`
	// The ids of the stores ("campaigns") whose returns are read. At most 1000. Default: every store that the token sees.
	Campaigns set[marketID] `key:"campaigns" market:"true" own:"true"`
	// A file whose content is the API token. A relative path is looked up in $CREDENTIALS_DIRECTORY, then beside the main
	// configuration file. Excludes token_env.
	TokenFile opt[secretFile] `key:"token_file" oneof:"token"`
	// The name of an environment variable whose value is the API token. Excludes token_file.
	TokenEnv opt[secretEnv] `key:"token_env" oneof:"token"`
	// Other tokens for single API groups. Default: the account's token for all of them.
	Tokens table[tokenEntry] `key:"tokens" keys:"groups"`
	// Which existing items count as new when the account is first polled: now (none), beginning (all that the API still gives)
	// or those since an RFC 3339 time.
	Start opt[Start] `key:"start" default:"now"`
	// The part of the seller's request limits that syncd may use, above 0 and at most 1.
	BudgetShare opt[share] `key:"budget_share" default:"1"`
	// Other base URLs for single API groups, http or https: a sandbox, a proxy. Default: the marketplace's own.
	Endpoints table[opt[endpointURL]] `key:"endpoints" keys:"groups"`
	// Settings of single streams. Streams that are not named here keep their defaults: `enabled` switches them, naming does not.
	Streams table[streamEntry] `key:"streams" keys:"streams"`
}

type tokenEntry struct {
	// A file whose content is the token, found as token_file is. Excludes env.
	File opt[secretFile] `key:"file" oneof:"token"`
	// The name of an environment variable whose value is the token. Excludes file.
	Env opt[secretEnv] `key:"env" oneof:"token"`
}

type streamEntry struct {
	// Whether the stream is polled. Default: true for nearly every stream.
	Enabled opt[flag] `key:"enabled"`
	// When to poll: a cron expression with five fields, with six (the first is seconds), or `@every 15s`; UTC. Where the
	// request limits are too tight for it, a poll waits for them.
	Schedule opt[text] `key:"schedule"`
	// How far behind the newest item seen each poll looks again for items that appear late. A duration, 0 or more. Only for
	// streams whose polls start from the newest item seen.
	Overlap opt[duration] `key:"overlap" stream:"overlap"`
	// How changes of old items are looked for. Only for streams whose items can change. Where each poll reads the whole list
	// anyway, changes are seen then.
	Sweep sweepEntry `key:"sweep" stream:"sweeps"`
	// Top-level fields of an item whose change is no news: it makes no event, and data.item of the next event still has the
	// field. A name is taken as it is, so a dot in it is part of the name and leads to no field further down. At most 100 names
	// of at most 200 bytes. Only for streams whose items can change. Default: none.
	Ignore set[fieldName] `key:"ignore" stream:"sweeps"`
}

type sweepEntry struct {
	// How often to look for changes where cheap means can tell them: by the marketplace's counts, and among recent items. A
	// duration above 0. Where the request limits are too tight for it, a sweep waits for them.
	Every opt[positiveDuration] `key:"every" default:"15m"`
	// How often to read the whole window, which shows every change. A duration, not less than every.
	Full opt[positiveDuration] `key:"full" default:"24h"`
	// How far back from now items are looked at. Changes of older ones are not seen. A duration above 0.
	Window opt[positiveDuration] `key:"window" default:"60d"`
}

type sinkEntry struct {
	// The name of the sink: a-z, 0-9 and -, not starting with -. Unique over all files: a new name is a new sink, which starts at
	// `from`.
	Name opt[name] `key:"name" required:"true"`
	// webhook posts events to a URL, file appends them to a file as lines of JSON, stdout writes such lines to standard output.
	Type opt[SinkType] `key:"type" required:"true"`
	// Which events the sink gets. Default: all. A change acts from then on.
	Select selectEntry `key:"select"`
	// Where a sink that syncd sees for the first time begins: now, or beginning (the oldest event kept).
	From opt[From] `key:"from" default:"now"`

	// The file to append to. A relative path starts at the directory of the main configuration file. One sink a file.
	Path opt[filePath] `key:"path" only:"file" required:"true"`
	// When a line counts as written. commit: when it is on the disk; nothing is ever lost. interval: likewise, but the disk is
	// asked about once a second for all lines since; nothing is lost, and what a power cut takes is written again. none: when the
	// system has it; what the system had not yet put on the disk at a power cut is lost. A crash of syncd alone loses nothing in
	// any mode.
	Sync opt[SyncMode] `key:"sync" only:"file" default:"commit"`
	// When the file is given another name and a new one begun. events.ndjson becomes events-00000000000000001042.ndjson, by the
	// sequence of its first event. Default: never.
	Rotate rotateEntry `key:"rotate" only:"file"`

	// Where to post events: an absolute http or https URL without a user or password. Redirects are not followed.
	URL opt[webhookURL] `key:"url" only:"webhook" required:"true"`
	// A file with signing secrets of Standard Webhooks, one a line, each `whsec_` and 24 to 64 bytes in base64. Each of them signs,
	// so that a secret can be replaced without a gap. Found as token_file is. Excludes secret_env and unsigned.
	SecretFile opt[secretFile] `key:"secret_file" only:"webhook" oneof:"secret"`
	// The name of an environment variable with the same content. Excludes secret_file and unsigned.
	SecretEnv opt[secretEnv] `key:"secret_env" only:"webhook" oneof:"secret"`
	// true sends events without a signature: the receiver cannot tell who sent them. Excludes secret_file and secret_env.
	Unsigned opt[onlyTrue] `key:"unsigned" only:"webhook" oneof:"secret"`
	// A file of CA certificates in PEM, found as token_file is, for an endpoint with a private CA. They replace the system's: for
	// this sink no other CA is trusted. Only for https. Default: the system's.
	CAFile opt[caFile] `key:"ca_file" only:"webhook"`
	// More request headers. Those that are for syncd to set are refused: webhook-*, syncd-*, Content-Type, User-Agent,
	// Idempotency-Key and what belongs to the connection. They are no place for secrets: they show in this file.
	Headers table[opt[headerValue]] `key:"headers" only:"webhook" keys:"headers"`
	// How long one request may take, until the end of the answer. A duration above 0.
	Timeout opt[positiveDuration] `key:"timeout" only:"webhook" default:"15s"`
	// How many requests may be under way at once, 1 to 256. Events about one subject still go one after another.
	Concurrency opt[concurrency] `key:"concurrency" only:"webhook" default:"8"`
	// The most requests a second, repeats included: a number from 0.001 (one in 1000 seconds) to 1000000. Default: no limit.
	Rate opt[rate] `key:"rate" only:"webhook"`
	// Several events in one request, as a JSON array.
	Batch batchEntry `key:"batch" only:"webhook"`
	// When to try again what the endpoint did not take, and when to give it up.
	Retry retryEntry `key:"retry" only:"webhook"`
}

type selectEntry struct {
	// Names of accounts; `*` stands for any characters, `?` for one, `[a-z]` for one of several. One that matches must be there.
	Accounts list[opt[Glob]] `key:"accounts"`
	// Types of events, as in wildberries.question.*, with the same wildcards. What syncd itself has to tell about an account's
	// streams begins with `syncd.`.
	Types list[opt[Glob]] `key:"types"`
}

type rotateEntry struct {
	// The size that the file may reach, as in 100MiB; one line that is larger is a file by itself. One of size and every is needed.
	// Default: no such limit.
	Size opt[size] `key:"size"`
	// How long after its first line the file is rotated, also when no event comes. A duration above 0. Default: no such limit.
	Every opt[positiveDuration] `key:"every"`
	// How many rotated files to keep; the oldest beyond that are deleted, and with them their events. 1 to 1000000.
	// Default: all.
	Keep opt[count] `key:"keep"`
	// zstd compresses rotated files, in the background, and adds .zst to their names; none leaves them as they are.
	Compress opt[compression] `key:"compress" default:"none"`
}

type batchEntry struct {
	// How many events a request may hold, 1 to 1000, with at most 1 MiB in all unless one alone is larger. 1 posts each event by
	// itself, as application/cloudevents+json; above 1 every request is an array, application/cloudevents-batch+json, whose
	// webhook-id is a hash of the ids in it: a repeat of the same events has the same one.
	MaxEvents opt[batchSize] `key:"max_events" default:"1"`
	// How long an event may wait for others to fill the batch. A duration, 0 or more; above 0 it needs max_events above 1.
	MaxWait opt[duration] `key:"max_wait" default:"0s"`
}

type retryEntry struct {
	// The longest wait before the first repeat. It doubles with each further one; the real wait is drawn at random below it.
	Initial opt[positiveDuration] `key:"initial" default:"5s"`
	// What the wait grows to at most. Not less than initial.
	Max opt[positiveDuration] `key:"max" default:"1h"`
	// How long after its first attempt an event is given up: the next attempt that fails makes it a dead letter, and the next one of
	// its subject follows. A duration, not less than initial.
	GiveUpAfter opt[positiveDuration] `key:"give_up_after" default:"96h"`
	// How often an event is tried that the endpoint refuses for good (4xx other than 408, 409, 410, 425 and 429) before it becomes a
	// dead letter. A refusal counts only if the endpoint took another event since the try before: one that refuses everything is
	// taken to be down. 1 to 1000000.
	MaxAttempts4xx opt[count] `key:"max_attempts_4xx" default:"5"`
}
