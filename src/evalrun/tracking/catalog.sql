CREATE TABLE project (
	id INTEGER NOT NULL,
	name TEXT NOT NULL,
	CONSTRAINT pk_project PRIMARY KEY (id),
	CONSTRAINT uq_project_name UNIQUE (name)
);
CREATE TABLE dataset_version (
	id INTEGER NOT NULL,
	name TEXT NOT NULL,
	digest TEXT NOT NULL,
	n INTEGER,
	source TEXT NOT NULL,
	CONSTRAINT pk_dataset_version PRIMARY KEY (id),
	CONSTRAINT uq_dataset_version_name_digest UNIQUE (name, digest)
);
CREATE TABLE sweep (
	ulid VARCHAR(26) NOT NULL,
	project_id INTEGER NOT NULL,
	name TEXT NOT NULL,
	folder TEXT NOT NULL,
	status TEXT NOT NULL,
	started_at TEXT NOT NULL,
	finished_at TEXT,
	exit_code INTEGER,
	spec_digest TEXT NOT NULL,
	suite_digest TEXT NOT NULL,
	git_commit TEXT,
	user_name TEXT,
	planned INTEGER NOT NULL,
	runs INTEGER NOT NULL,
	samples INTEGER NOT NULL,
	failed INTEGER NOT NULL,
	stamp TEXT NOT NULL,
	archived INTEGER DEFAULT '0' NOT NULL,
	note TEXT,
	CONSTRAINT pk_sweep PRIMARY KEY (ulid),
	CONSTRAINT fk_sweep_project_id FOREIGN KEY(project_id) REFERENCES project (id)
);
CREATE INDEX ix_sweep_project_id_ulid ON sweep (project_id, ulid);
CREATE INDEX ix_sweep_spec_digest ON sweep (spec_digest);
CREATE INDEX ix_sweep_name_ulid ON sweep (name, ulid);
CREATE TABLE training (
	ulid VARCHAR(26) NOT NULL,
	project_id INTEGER NOT NULL,
	name TEXT NOT NULL,
	folder TEXT NOT NULL,
	status TEXT NOT NULL,
	framework TEXT NOT NULL,
	started_at TEXT,
	finished_at TEXT,
	steps INTEGER NOT NULL,
	stamp TEXT NOT NULL,
	archived INTEGER DEFAULT '0' NOT NULL,
	note TEXT,
	CONSTRAINT pk_training PRIMARY KEY (ulid),
	CONSTRAINT fk_training_project_id FOREIGN KEY(project_id) REFERENCES project (id)
);
CREATE INDEX ix_training_name_ulid ON training (name, ulid);
CREATE TABLE sweep_tag (
	sweep VARCHAR(26) NOT NULL,
	"key" TEXT NOT NULL,
	value TEXT NOT NULL,
	num FLOAT,
	CONSTRAINT pk_sweep_tag PRIMARY KEY (sweep, "key"),
	CONSTRAINT fk_sweep_tag_sweep FOREIGN KEY(sweep) REFERENCES sweep (ulid) ON DELETE CASCADE
);
CREATE INDEX ix_sweep_tag_key_value ON sweep_tag ("key", value);
CREATE TABLE run (
	id INTEGER NOT NULL,
	sweep VARCHAR(26) NOT NULL,
	run TEXT NOT NULL,
	model TEXT NOT NULL,
	prompt TEXT NOT NULL,
	dataset TEXT NOT NULL,
	dataset_version_id INTEGER,
	prompt_digest TEXT,
	status TEXT NOT NULL,
	repeats INTEGER NOT NULL,
	samples INTEGER NOT NULL,
	scored INTEGER NOT NULL,
	unparsed INTEGER NOT NULL,
	refused INTEGER NOT NULL,
	failed INTEGER NOT NULL,
	cached INTEGER NOT NULL,
	retried INTEGER NOT NULL,
	started_at TEXT,
	wall_s FLOAT,
	samples_sha256 TEXT,
	training TEXT,
	step INTEGER,
	CONSTRAINT pk_run PRIMARY KEY (id),
	CONSTRAINT uq_run_sweep_run UNIQUE (sweep, run),
	CONSTRAINT fk_run_sweep FOREIGN KEY(sweep) REFERENCES sweep (ulid) ON DELETE CASCADE,
	CONSTRAINT fk_run_dataset_version_id FOREIGN KEY(dataset_version_id) REFERENCES dataset_version (id)
);
CREATE INDEX ix_run_model ON run (model);
CREATE INDEX ix_run_prompt ON run (prompt);
CREATE INDEX ix_run_dataset_version_id ON run (dataset_version_id);
CREATE INDEX ix_run_training_step ON run (training, step);
CREATE TABLE training_tag (
	training VARCHAR(26) NOT NULL,
	"key" TEXT NOT NULL,
	value TEXT NOT NULL,
	CONSTRAINT pk_training_tag PRIMARY KEY (training, "key"),
	CONSTRAINT fk_training_tag_training FOREIGN KEY(training) REFERENCES training (ulid) ON DELETE CASCADE
);
CREATE TABLE training_metric_last (
	training VARCHAR(26) NOT NULL,
	name TEXT NOT NULL,
	step INTEGER NOT NULL,
	value FLOAT,
	low FLOAT,
	high FLOAT,
	CONSTRAINT pk_training_metric_last PRIMARY KEY (training, name),
	CONSTRAINT fk_training_metric_last_training FOREIGN KEY(training) REFERENCES training (ulid) ON DELETE CASCADE
);
CREATE TABLE event (
	sweep VARCHAR(26) NOT NULL,
	seq INTEGER NOT NULL,
	ts TEXT NOT NULL,
	actor TEXT NOT NULL,
	action TEXT NOT NULL,
	target TEXT NOT NULL,
	detail TEXT NOT NULL,
	hash VARCHAR(64) NOT NULL,
	CONSTRAINT pk_event PRIMARY KEY (sweep, seq),
	CONSTRAINT fk_event_sweep FOREIGN KEY(sweep) REFERENCES sweep (ulid) ON DELETE CASCADE
);
CREATE INDEX ix_event_action_ts ON event (action, ts);
CREATE INDEX ix_event_ts ON event (ts);
CREATE TABLE run_param (
	run_id INTEGER NOT NULL,
	"key" TEXT NOT NULL,
	type TEXT NOT NULL,
	num FLOAT,
	text TEXT,
	CONSTRAINT pk_run_param PRIMARY KEY (run_id, "key"),
	CONSTRAINT fk_run_param_run_id FOREIGN KEY(run_id) REFERENCES run (id) ON DELETE CASCADE
);
CREATE INDEX ix_run_param_key_num ON run_param ("key", num);
CREATE INDEX ix_run_param_key_text ON run_param ("key", text);
CREATE TABLE run_metric (
	run_id INTEGER NOT NULL,
	name TEXT NOT NULL,
	slice TEXT NOT NULL,
	value FLOAT,
	n INTEGER NOT NULL,
	se FLOAT,
	ci_low FLOAT,
	ci_high FLOAT,
	unit TEXT NOT NULL,
	direction TEXT NOT NULL,
	method TEXT NOT NULL,
	note TEXT NOT NULL,
	incomplete INTEGER NOT NULL,
	bound_low FLOAT,
	bound_high FLOAT,
	CONSTRAINT pk_run_metric PRIMARY KEY (run_id, name, slice),
	CONSTRAINT fk_run_metric_run_id FOREIGN KEY(run_id) REFERENCES run (id) ON DELETE CASCADE
);
CREATE INDEX ix_run_metric_name_slice_value ON run_metric (name, slice, value);
CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)
