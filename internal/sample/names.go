package sample

// metric is one of those that an instance has once. Those with a device or an
// interface are below.
type metric int

const (
	lastSeen metric = iota
	startTime
	creationTime
	healthState
	cpuUsage
	cpuUser
	cpuSystem
	cfsPeriods
	cfsThrottledPeriods
	cfsThrottledSeconds
	memoryUsage
	memoryMaxUsage
	memoryWorkingSet
	memoryRSS
	memoryCache
	memorySwap
	memoryMapped
	memoryActiveFile
	memoryInactiveFile
	memoryKernel
	memoryFailcnt
	memoryFaults
	memoryMajorFaults
	oomEvents
	processes
	threads
	threadsMax
	descriptors
	cpuWaiting
	cpuStalled
	memoryWaiting
	memoryStalled
	ioWaiting
	ioStalled
	specCPUPeriod
	specCPUQuota
	specCPUShares
	specMemoryLimit
	specMemorySwapLimit
	specMemoryReservation
	instanceRunning
	instanceHealth
	instanceRestarts
	instanceExitCode
	metrics // how many there are
)

// naming is how a series is called. The words are cAdvisor's where it has the series.
type naming struct {
	name, help string
	kind       Kind
	extra      []Label
}

var named = [metrics]naming{
	lastSeen:              {"container_last_seen", "Last time a container was seen by the exporter", Gauge, nil},
	startTime:             {"container_start_time_seconds", "Start time of the container since unix epoch in seconds.", Gauge, nil},
	creationTime:          {"container_creation_time_seconds", "Container creation time since unix epoch in seconds.", Gauge, nil},
	healthState:           {"container_health_state", "The result of the container's health check", Gauge, nil},
	cpuUsage:              {"container_cpu_usage_seconds_total", "Cumulative cpu time consumed in seconds.", Counter, []Label{{"cpu", "total"}}},
	cpuUser:               {"container_cpu_user_seconds_total", "Cumulative user cpu time consumed in seconds.", Counter, nil},
	cpuSystem:             {"container_cpu_system_seconds_total", "Cumulative system cpu time consumed in seconds.", Counter, nil},
	cfsPeriods:            {"container_cpu_cfs_periods_total", "Number of elapsed enforcement period intervals.", Counter, nil},
	cfsThrottledPeriods:   {"container_cpu_cfs_throttled_periods_total", "Number of throttled period intervals.", Counter, nil},
	cfsThrottledSeconds:   {"container_cpu_cfs_throttled_seconds_total", "Total time duration the container has been throttled.", Counter, nil},
	memoryUsage:           {"container_memory_usage_bytes", "Current memory usage in bytes, including all memory regardless of when it was accessed", Gauge, nil},
	memoryMaxUsage:        {"container_memory_max_usage_bytes", "Maximum memory usage recorded in bytes", Gauge, nil},
	memoryWorkingSet:      {"container_memory_working_set_bytes", "Current working set in bytes.", Gauge, nil},
	memoryRSS:             {"container_memory_rss", "Size of RSS in bytes.", Gauge, nil},
	memoryCache:           {"container_memory_cache", "Number of bytes of page cache memory.", Gauge, nil},
	memorySwap:            {"container_memory_swap", "Container swap usage in bytes.", Gauge, nil},
	memoryMapped:          {"container_memory_mapped_file", "Size of memory mapped files in bytes.", Gauge, nil},
	memoryActiveFile:      {"container_memory_total_active_file_bytes", "Current total active file in bytes.", Gauge, nil},
	memoryInactiveFile:    {"container_memory_total_inactive_file_bytes", "Current total inactive file in bytes.", Gauge, nil},
	memoryKernel:          {"container_memory_kernel_usage", "Size of kernel memory allocated in bytes.", Gauge, nil},
	memoryFailcnt:         {"container_memory_failcnt", "Number of memory usage hits limits", Counter, nil},
	memoryFaults:          {"container_memory_failures_total", "Cumulative count of memory allocation failures.", Counter, []Label{{"failure_type", "pgfault"}, {"scope", "container"}}},
	memoryMajorFaults:     {"container_memory_failures_total", "Cumulative count of memory allocation failures.", Counter, []Label{{"failure_type", "pgmajfault"}, {"scope", "container"}}},
	oomEvents:             {"container_oom_events_total", "Count of out of memory events observed for the container", Counter, nil},
	processes:             {"container_processes", "Number of processes running inside the container.", Gauge, nil},
	threads:               {"container_threads", "Number of threads running inside the container", Gauge, nil},
	threadsMax:            {"container_threads_max", "Maximum number of threads allowed inside the container, infinity if value is zero", Gauge, nil},
	descriptors:           {"container_file_descriptors", "Number of open file descriptors for the container.", Gauge, nil},
	cpuWaiting:            {"container_pressure_cpu_waiting_seconds_total", "Total time duration tasks in the container have waited due to CPU congestion.", Counter, nil},
	cpuStalled:            {"container_pressure_cpu_stalled_seconds_total", "Total time duration no tasks in the container could make progress due to CPU congestion.", Counter, nil},
	memoryWaiting:         {"container_pressure_memory_waiting_seconds_total", "Total time duration tasks in the container have waited due to memory congestion.", Counter, nil},
	memoryStalled:         {"container_pressure_memory_stalled_seconds_total", "Total time duration no tasks in the container could make progress due to memory congestion.", Counter, nil},
	ioWaiting:             {"container_pressure_io_waiting_seconds_total", "Total time duration tasks in the container have waited due to IO congestion.", Counter, nil},
	ioStalled:             {"container_pressure_io_stalled_seconds_total", "Total time duration no tasks in the container could make progress due to IO congestion.", Counter, nil},
	specCPUPeriod:         {"container_spec_cpu_period", "CPU period of the container.", Gauge, nil},
	specCPUQuota:          {"container_spec_cpu_quota", "CPU quota of the container.", Gauge, nil},
	specCPUShares:         {"container_spec_cpu_shares", "CPU share of the container.", Gauge, nil},
	specMemoryLimit:       {"container_spec_memory_limit_bytes", "Memory limit for the container.", Gauge, nil},
	specMemorySwapLimit:   {"container_spec_memory_swap_limit_bytes", "Memory swap limit for the container.", Gauge, nil},
	specMemoryReservation: {"container_spec_memory_reservation_limit_bytes", "Memory reservation limit for the container.", Gauge, nil},
	instanceRunning:       {"tender_instance_running", "1 while the instance runs, 0 while it does not.", Gauge, nil},
	instanceHealth:        {"tender_instance_health", "What the healthcheck says: 1 healthy, 0 unhealthy, -1 not yet known.", Gauge, nil},
	instanceRestarts:      {"tender_instance_restarts_total", "Times that the engine restarted the instance.", Counter, nil},
	instanceExitCode:      {"tender_instance_exit_code", "What the instance ended with, while it does not run.", Gauge, nil},
}

// ours reports whether the series is there without a control group.
func (m metric) ours() bool { return m >= instanceRunning }

var namedOfDisk = [...]naming{
	{"container_fs_reads_bytes_total", "Cumulative count of bytes read", Counter, nil},
	{"container_fs_writes_bytes_total", "Cumulative count of bytes written", Counter, nil},
	{"container_fs_reads_total", "Cumulative count of reads completed", Counter, nil},
	{"container_fs_writes_total", "Cumulative count of writes completed", Counter, nil},
}

// namedOfInterface follows the order of columns in columns below.
var namedOfInterface = [...]naming{
	{"container_network_receive_bytes_total", "Cumulative count of bytes received", Counter, nil},
	{"container_network_receive_packets_total", "Cumulative count of packets received", Counter, nil},
	{"container_network_receive_errors_total", "Cumulative count of errors encountered while receiving", Counter, nil},
	{"container_network_receive_packets_dropped_total", "Cumulative count of packets dropped while receiving", Counter, nil},
	{"container_network_transmit_bytes_total", "Cumulative count of bytes transmitted", Counter, nil},
	{"container_network_transmit_packets_total", "Cumulative count of packets transmitted", Counter, nil},
	{"container_network_transmit_errors_total", "Cumulative count of errors encountered while transmitting", Counter, nil},
	{"container_network_transmit_packets_dropped_total", "Cumulative count of packets dropped while transmitting", Counter, nil},
}

// columns are those of /proc/net/dev that namedOfInterface shows.
var columns = [...]int{0, 1, 2, 3, 8, 9, 10, 11}
