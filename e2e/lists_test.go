package e2e

// kind is what a file of the corpus shows.
type kind int

const (
	compared kind = iota + 1 // both make the same, but for the differences named
	oursOnly                 // Docker Compose cannot do it
	refused                  // Tender says why it does not
)

// verdict is what becomes of one file.
type verdict struct {
	kind kind
	// api is the version of the engine's API from which on the file is compared (or what then says); below it, it is of its kind.
	// warns is the one below which Tender only says that it leaves something out.
	api, warns string
	then       kind         // from api on, if not compared
	but        []difference // that are meant
	says       []string     // words that Tender's user reads
	both       bool         // refused by Docker Compose, too
	nothing    bool         // no container comes of it
	may        string       // words with which engines that cannot do it turn both down
	// unstarted files are compared as created: not every machine can start them.
	unstarted bool
}

// ofIDs is a difference that comes of Docker Compose's habit to hash the id of the container joined: the hash
// never stays the same.
var ofIDs = difference{"com.docker.compose.config-hash", "hashed with the id of the container that it joins"}

var verdicts = map[string]verdict{
	// Compared: both make the same, but for the differences that are meant.

	"aliases":                     {kind: compared},
	"anchors":                     {kind: compared},
	"attach":                      {kind: compared, says: []string{"services.app.attach"}},
	"bind":                        {kind: compared},
	"bind-propagation":            {kind: compared, unstarted: true},
	"blkio":                       {kind: compared},
	"blkio-devices":               {kind: compared},
	"build":                       {kind: compared, but: []difference{{"com.docker.compose.image", "two builds, two images"}}},
	"cap-add-drop":                {kind: compared},
	"cap-drop-all":                {kind: compared},
	"cgroup-host":                 {kind: compared},
	"cgroup-parent":               {kind: compared},
	"cgroup-private":              {kind: compared},
	"command-as-text":             {kind: compared},
	"config-content":              {kind: compared},
	"configs":                     {kind: compared},
	"container-name":              {kind: compared},
	"cpu":                         {kind: compared},
	"cpu-quota":                   {kind: compared},
	"cpu-realtime":                {kind: compared},
	"cpu-windows":                 {kind: compared, says: []string{"services.app.cpu_count", "services.app.cpu_percent"}},
	"default-network":             {kind: compared},
	"depends-on":                  {kind: compared},
	"deploy-devices":              {kind: compared, unstarted: true},
	"deploy-global":               {kind: compared},
	"deploy-over-older":           {kind: compared},
	"deploy-replicas":             {kind: compared},
	"deploy-resources":            {kind: compared},
	"deploy-restart-over-restart": {kind: compared},
	"deploy-restart-policy":       {kind: compared},
	"deploy-swarm-only":           {kind: compared, says: []string{"services.app.deploy.endpoint_mode", "services.app.deploy.labels", "services.app.deploy.placement"}},
	"deploy-zero":                 {kind: compared, nothing: true},
	"develop":                     {kind: compared, but: []difference{{"config-hash", "what is not honoured is no part of the project"}}, says: []string{"services.app.develop"}},
	"device-cgroup-rules":         {kind: compared},
	"devices":                     {kind: compared},
	"devices-long":                {kind: compared},
	"dns":                         {kind: compared},
	"dns-one":                     {kind: compared},
	"dotenv":                      {kind: compared},
	"endpoint-driver-opts":        {kind: compared},
	"entrypoint-and-command":      {kind: compared},
	"entrypoint-cleared":          {kind: compared},
	"env-file":                    {kind: compared},
	"environment-list":            {kind: compared},
	"environment-map":             {kind: compared},
	"expose":                      {kind: compared},
	"extends":                     {kind: compared},
	"extensions":                  {kind: compared},
	"external-links":              {kind: compared},
	"extra-hosts":                 {kind: compared},
	"extra-hosts-map":             {kind: compared},
	"gpus":                        {kind: compared, unstarted: true},
	"gpus-list":                   {kind: compared, unstarted: true},
	"healthcheck":                 {kind: compared},
	"healthcheck-none":            {kind: compared},
	"healthcheck-text":            {kind: compared},
	"hook-post-start":             {kind: compared},
	"hook-pre-stop":               {kind: compared},
	"hostname":                    {kind: compared},
	"include":                     {kind: compared},
	"init":                        {kind: compared},
	"init-off":                    {kind: compared},
	"ipc-host":                    {kind: compared},
	"ipc-private":                 {kind: compared},
	"ipc-service":                 {kind: compared, but: []difference{ofIDs}},
	"ipc-shareable":               {kind: compared},
	"isolation":                   {kind: compared, says: []string{"services.app.isolation"}},
	"job":                         {kind: compared},
	"label-file":                  {kind: compared, but: []difference{{"config-hash", "the labels are in the project, not the name of their file"}}},
	"labels":                      {kind: compared},
	"labels-list":                 {kind: compared},
	"link-local":                  {kind: compared},
	"links":                       {kind: compared, but: []difference{{".Links[", "SERVICE-N and container names are names of the network itself"}}},
	"links-on-the-bridge":         {kind: compared},
	"logging":                     {kind: compared},
	"logging-none":                {kind: compared},
	"logging-options":             {kind: compared},
	"memory":                      {kind: compared},
	"memory-swap-without-end":     {kind: compared},
	"merge":                       {kind: compared},
	"network-bridge":              {kind: compared},
	"network-container":           {kind: compared},
	"network-driver-opts":         {kind: compared},
	"network-external":            {kind: compared},
	"network-host":                {kind: compared},
	"network-ipv4-off":            {kind: compared},
	"network-macvlan":             {kind: compared, may: "operation not supported"},
	"network-named":               {kind: compared},
	"network-none":                {kind: compared},
	"network-priority":            {kind: compared},
	"network-service":             {kind: compared, but: []difference{ofIDs}},
	"oom":                         {kind: compared},
	"override":                    {kind: compared},
	"pid-host":                    {kind: compared},
	"pid-service":                 {kind: compared, but: []difference{ofIDs}},
	"pids":                        {kind: compared},
	"platform":                    {kind: compared},
	"ports":                       {kind: compared},
	"ports-ipv6":                  {kind: compared},
	"privileged":                  {kind: compared, unstarted: true},
	"profiles":                    {kind: compared},
	"pull-missing":                {kind: compared},
	"pull-never":                  {kind: compared},
	"read-only-root":              {kind: compared},
	"restart-always":              {kind: compared},
	"restart-no":                  {kind: compared},
	"restart-on-failure":          {kind: compared},
	"restart-unless-stopped":      {kind: compared},
	"runtime":                     {kind: compared},
	"scale":                       {kind: compared},
	"seccomp-profile":             {kind: compared, but: []difference{{"config-hash", "the profile travels inside the project"}}},
	"secret-environment":          {kind: compared},
	"secrets":                     {kind: compared},
	"security-opt":                {kind: compared},
	"shm":                         {kind: compared},
	"static-address":              {kind: compared},
	"static-address-ipv6":         {kind: compared},
	"stop":                        {kind: compared},
	"stop-at-once":                {kind: compared},
	"storage-opt":                 {kind: compared, may: "--storage-opt is supported only for"},
	"sysctls":                     {kind: compared},
	"sysctls-list":                {kind: compared},
	"systempaths":                 {kind: compared},
	"tmpfs-mount":                 {kind: compared},
	"tmpfs-text":                  {kind: compared},
	"tty-stdin":                   {kind: compared},
	"ulimits":                     {kind: compared},
	"user-group":                  {kind: compared},
	"userns-host":                 {kind: compared},
	"uts-host":                    {kind: compared},
	"version":                     {kind: compared},
	"volume-anonymous":            {kind: compared},
	"volume-driver-opts":          {kind: compared},
	"volume-external":             {kind: compared},
	"volume-labels":               {kind: compared},
	"volume-named":                {kind: compared},
	"volume-named-otherwise":      {kind: compared},
	"volume-nocopy":               {kind: compared},
	"volume-nocopy-short":         {kind: compared},
	"volumes-from":                {kind: compared, but: []difference{ofIDs, {"HostConfig.VolumesFrom", "Docker Compose loses :ro"}, {".RW", "Docker Compose loses :ro"}}},

	// Ours only: Docker Compose cannot do it.

	"build-inline":    {kind: oursOnly},
	"secret-external": {kind: oursOnly},

	// Needs a newer API than Debian's engine speaks: until then refused, or warned of.

	"annotations":                {kind: refused, api: "1.43", says: []string{"annotations needs API 1.43"}},
	"bind-recursive":             {kind: refused, api: "1.44", says: []string{"bind.recursive needs API 1.44"}},
	"device-cdi":                 {kind: refused, api: "1.44", unstarted: true, says: []string{"a CDI device needs API 1.44"}},
	"gw-priority":                {kind: compared, warns: "1.48", says: []string{"gw_priority is left out"}},
	"healthcheck-start-interval": {kind: compared, warns: "1.44", says: []string{"healthcheck.start_interval is left out"}},
	"interface-name":             {kind: refused, api: "1.49", both: true, says: []string{"interface_name needs API 1.49"}},
	"mac-address":                {kind: refused, api: "1.44", says: []string{"mac_address needs API 1.44"}},
	"mac-address-of-network":     {kind: refused, api: "1.44", says: []string{"mac_address needs API 1.44"}},
	"umask":                      {kind: refused, both: true, api: "1.56", then: oursOnly, says: []string{"umask needs API 1.56"}},
	"volume-image":               {kind: refused, api: "1.48", both: true, but: []difference{{"image-volume-digest", "a label of Docker Compose for itself"}, {"Mounts./img.Source", "where the engine unpacks it"}}, says: []string{"a volume of type image needs API 1.48"}},
	"volume-subpath":             {kind: refused, api: "1.45", unstarted: true, says: []string{"volume.subpath needs API 1.45"}},

	// Refused: with the reason and, where it is the file's fault, its line.

	"api-socket":               {kind: refused, says: []string{"it hands the engine, and with it the host, to the service"}},
	"bind-missing":             {kind: refused, both: true, says: []string{"/no/such/folder"}},
	"config-external":          {kind: refused, both: true, says: []string{"only secrets can be external"}},
	"credential-spec":          {kind: refused, says: []string{"it exists on Windows only"}},
	"deploy-generic-resources": {kind: refused, says: []string{"the engine has no such resources without Swarm"}},
	"hook-pre-start":           {kind: refused, says: []string{"services.app.pre_start: not honoured"}},
	"models":                   {kind: refused, says: []string{"language models are not run here"}},
	"network-external-missing": {kind: refused, both: true, says: []string{"network no-such-network is external and not there"}},
	"provider":                 {kind: refused, both: true, says: []string{"compose.yaml:3:5: services.app.provider: not honoured: providers are not run"}},
	"pull-daily":               {kind: refused, says: []string{"services.app.pull_policy"}},
	"runtime-unknown":          {kind: refused, both: true, says: []string{"no-such-runtime"}},
	"unknown-key":              {kind: refused, both: true, says: []string{`compose.yaml:5:5: services.app: unknown key "imgae", did you mean "image"?`}},
	"volume-external-missing":  {kind: refused, both: true, says: []string{"volume no-such-volume is external and not there"}},
	"wrong-value":              {kind: refused, both: true, says: []string{"compose.yaml:5:13: services.app.ports[0]"}},
}

// observation is what is seen in an instance of a file that runs: the output of
// a command, or a file once it is stopped.
type observation struct {
	service   string // app, if empty
	command   string
	afterStop string // a file
	want      string
}

var observed = map[string][]observation{
	"aliases":                {{command: "ping -c 1 web.example.com && ping -c 1 app-1", want: "1 packets received"}},
	"cap-drop-all":           {{command: "grep CapEff /proc/1/status; grep NoNewPrivs /proc/1/status", want: "0000000000000400\nNoNewPrivs:\t1"}},
	"config-content":         {{command: "cat /page", want: "hello world\n"}},
	"env-file":               {{command: "echo $A $B $C $RAW", want: `two quoted one file "kept as ${IT} is"`}},
	"extra-hosts":            {{command: "cat /etc/hosts", want: "10.9.9.9\tdb"}},
	"hook-post-start":        {{command: "cat /tmp/hook", want: "started 1000 /tmp"}},
	"hook-pre-stop":          {{afterStop: "/data/hook", want: "bye\n"}},
	"init":                   {{command: "cat /proc/1/comm", want: "init"}},
	"interface-name":         {{command: "ls /sys/class/net", want: "lan0"}},
	"job":                    {{command: "cat /data/state", want: "done"}},
	"mac-address":            {{command: "cat /sys/class/net/eth0/address", want: "02:42:ac:11:65:43"}},
	"mac-address-of-network": {{command: "cat /sys/class/net/eth0/address", want: "02:42:ac:11:65:44"}},
	"read-only-root":         {{command: "touch /x || touch /tmp/x && echo written", want: "written"}},
	"secret-environment":     {{command: "cat /run/secrets/token", want: "a token"}},
	"secret-external":        {{command: "cat /run/secrets/corpus_external", want: "kept in the vault"}},
	"secrets":                {{command: "cat /run/secrets/token; stat -c '%a %u %g' /etc/token", want: "not a secret\n440 1000 1000"}},
	"static-address":         {{command: "hostname -i", want: "10.213.1.9"}},
	"sysctls":                {{command: "cat /proc/sys/net/core/somaxconn", want: "1024"}},
	"tmpfs-mount":            {{command: "grep ' /scratch ' /proc/mounts", want: "size=1024k,mode=1700"}},
	// Not the soft one of files: a process of docker exec was seen with the hard one in its place, by a race in runc.
	"ulimits":            {{command: "ulimit -H -n", want: "2048"}, {command: "ulimit -c", want: "0"}},
	"user-group":         {{command: "id -u; id -G; pwd", want: "1000\n1000 7 44\n/tmp"}},
	"volume-driver-opts": {{command: "grep ' /data ' /proc/mounts", want: "tmpfs /data tmpfs"}},
	"volumes-from":       {{service: "side", command: "touch /data/x || echo read-only", want: "read-only"}},
}
