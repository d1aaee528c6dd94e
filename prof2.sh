bash /tmp/perf/var.sh "T_G=8" perf record -o /tmp/perf/p3.data -F 5000 python /tmp/perf/att.py $1 ${2:-b} 2>&1 | grep -v perf
perf report -i /tmp/perf/p3.data --stdio --sort sym 2>/dev/null| grep -v '^#' | sed -E 's/_ZN8feste_dp7kernels//; s/B[0-9]v.*//' | head -${3:-30}
