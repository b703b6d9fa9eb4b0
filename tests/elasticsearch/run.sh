#!/bin/sh
# A real Elasticsearch for tests, without Docker: the server's own jars from Maven Central in one JVM.
#   run.sh fetch                              fetches and compiles, once per version of this folder
#   run.sh PORT DATA_DIR [setting=value ...]  runs one node in the foreground; SIGTERM stops it
# ILM, data streams, Painless and other modules are not published as jars and not here.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
version=$(sed -n 's|.*<version>\(8\.[0-9.]*\)</version>.*|\1|p' "$here/pom.xml" | head -n 1)
recipe=$(cat "$here/run.sh" "$here/pom.xml" "$here"/*.java | sha256sum | cut -c 1-12)
tools=${OBSERVER_TOOLS_DIR:-$here/../../.tools}
home=$tools/elasticsearch-$version-$recipe
java=${JAVA_HOME:+$JAVA_HOME/bin/}

plugin() { # plugin NAME CLASS: a module's folder needs a descriptor that the published jars lack
    printf '%s\n' "name=$1" "description=$1" "classname=$2" "version=$version" \
        "elasticsearch.version=$version" java.version=17 >"$work/modules/$1/plugin-descriptor.properties"
}

compile() { # compile SOURCE FOLDER
    "${java}javac" -p "$work/lib" --add-modules ALL-MODULE-PATH -d "$2" "$here/$1"
}

fetch() {
    for command in mvn "${java}javac"; do
        command -v "$command" >/dev/null || {
            echo "run.sh: $command is missing: Elasticsearch needs Maven and a JDK (17 or newer)" >&2
            exit 1
        }
    done
    echo "fetching Elasticsearch $version"
    work=$(mktemp -d "$tools/fetching-XXXXXX")
    trap 'rm -rf "$work"' EXIT
    mkdir -p "$work/modules/transport-netty4" "$work/modules/root" "$work/classes" "$work/root"
    mvn -q -B -ntp -Dstyle.color=never -f "$here/pom.xml" dependency:copy-dependencies -DoutputDirectory="$work/lib" >&2
    # The transport is loaded as a module of its own; the same classes on the server's path would clash.
    mv "$work"/lib/netty-*.jar "$work"/lib/transport-netty4-*.jar "$work"/lib/elasticsearch-ssl-config-*.jar \
        "$work/modules/transport-netty4"
    compile Launcher.java "$work/classes"
    compile RootPlugin.java "$work/root"
    "${java}jar" --create --file "$work/modules/root/root.jar" -C "$work/root" .
    plugin transport-netty4 org.elasticsearch.transport.netty4.Netty4Plugin
    plugin root observer.tests.RootPlugin
    mv "$work" "$home" # whole or not at all
}

if [ "$1" = fetch ]; then
    [ -d "$home" ] || fetch
    exit 0
fi
if [ ! -d "$home" ]; then
    echo "run.sh: $home is missing: run scripts/fetch-test-servers" >&2
    exit 1
fi
port=$1 folder=$2
shift 2
heap=${OBSERVER_ES_HEAP:-512m}
exec "${java}java" -Xms"$heap" -Xmx"$heap" -XX:MaxDirectMemorySize=128m -Des.distribution.type=tar \
    -Des.path.home="$home" -p "$home/lib" --add-modules=jdk.net,ALL-MODULE-PATH \
    -cp "$home/classes" Launcher "$home" "$port" "$folder" "$@"
